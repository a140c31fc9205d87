"""Rounds float fields of parsed JSON: protobuf-py rejects decimal forms of float's maximum."""

import re
from typing import Any

from protobuf import DescMessage

from edge_gateway.json.field_index import FieldIndex, IndexedField
from edge_gateway.routing.float_range import MAX_FLOAT, OUT_OF_RANGE, round_to_float

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


def round_floats(fields: FieldIndex, message: DescMessage, value: Any) -> None:
    """Round the values of all float fields in a parsed JSON object, in place."""
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        field = fields.of(message).get(key)
        if field is None:
            continue
        if field.is_float:
            value[key] = _rounded(field, item)
        elif field.child is not None:
            for _, element in field.elements(item):
                round_floats(fields, field.child, element)


def _rounded(field: IndexedField, item: Any) -> Any:
    if field.is_list and isinstance(item, list):
        return [_number(element) for element in item]
    if field.is_map and isinstance(item, dict):
        return {key: _number(element) for key, element in item.items()}
    return _number(item)


def _number(item: Any) -> Any:
    """Round a number, or the text of one; return everything else unchanged."""
    is_number = isinstance(item, int | float) and not isinstance(item, bool)
    if not is_number and not (isinstance(item, str) and _NUMBER.fullmatch(item)):
        return item
    try:
        number = float(item)
    except OverflowError:
        return item
    return round_to_float(number) if MAX_FLOAT < abs(number) < OUT_OF_RANGE else item
