"""Checks parsed JSON for errors that the codec accepts.

Unknown fields by their path, both spellings of one field, two members of one oneof, and integers in a form that is not
JSON's.
"""

import re
from typing import Any

from protobuf import DescField, DescMessage

from edge_gateway.json.field_index import FieldIndex, IndexedField
from edge_gateway.json.json_parsing import JsonViolation
from edge_gateway.routing.field_types import is_opaque

_INTEGER_TEXT = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


class StrictnessCheck:
    """Checks the values of one registry's messages; removes unknown fields if it is to ignore them."""

    def __init__(self, fields: FieldIndex, *, ignore_unknown: bool) -> None:
        self._fields = fields
        self._ignore_unknown = ignore_unknown

    def check(self, message: DescMessage, value: Any) -> None:
        """Raise JsonViolation for the first error."""
        if not is_opaque(message):
            self._check(message, value)

    def _check(self, message: DescMessage, value: Any) -> None:
        if type(value) is not dict:
            return  # of a wrong type, which the codec reports
        fields = self._fields.of(message)
        chosen: dict[str, str] = {}
        for key in tuple(value) if self._ignore_unknown else value:
            field = fields.get(key)
            if field is None:
                self._unknown(value, key)
                continue
            item = value[key]
            if field.desc.name != field.desc.json_name:
                _reject_both_spellings(field.desc, key, value)
            if field.oneof is not None and item is not None:
                other = chosen.setdefault(field.oneof.name, key)
                if other != key:
                    raise JsonViolation(f"excludes {other}: both belong to {field.oneof.name}", field.desc.json_name)
            if item is not None:
                try:
                    self._check_field(field, item)
                except JsonViolation as violation:
                    violation.path.insert(0, field.desc.json_name)
                    raise

    def _unknown(self, value: dict[str, Any], key: str) -> None:
        if self._ignore_unknown:
            del value[key]
        elif not (key.startswith("[") and key.endswith("]")):  # an extension; the codec knows which ones exist
            raise JsonViolation("is not a field of this message", key)

    def _check_field(self, field: IndexedField, item: Any) -> None:
        if field.has_integer_keys and isinstance(item, dict):
            for key in item:
                _check_integer(key, f'["{key}"]')
        if field.child is None and not field.is_integer:
            return
        for label, element in field.elements(item):
            if field.child is None:
                _check_integer(element, label)
                continue
            try:
                self._check(field.child, element)
            except JsonViolation as violation:
                if label:
                    violation.path.insert(0, label)
                raise


def _check_integer(value: Any, label: str) -> None:
    """Raise JsonViolation for text that is not the canonical form of an integer."""
    if type(value) is str and not _INTEGER_TEXT.fullmatch(value):
        raise JsonViolation("must be an integer", *([label] if label else []))


def _reject_both_spellings(field: DescField, key: str, value: dict[str, Any]) -> None:
    other = field.json_name if key == field.name else field.name
    if other in value:
        raise JsonViolation(f"occurs twice: as {field.json_name} and as {field.name}", field.json_name)
