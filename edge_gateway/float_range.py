"""Rounds numbers to float's maximum as a conversion to the nearest float does; protobuf-py rejects them instead.

Decimal forms of the maximum, such as 3.4028235e+38 which other languages print, are a little larger than it.
"""

import math
import re
from typing import Any

from protobuf import DescMessage

from edge_gateway.members import Member, Members

MAX_FLOAT = 3.4028234663852886e38
#: The maximum and half a step more: the first number whose nearest float would be infinite.
_OUT_OF_RANGE = 3.4028235677973366e38
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


def round_to_float(number: float) -> float:
    """Return the maximum, with the number's sign, for a number that rounds to it; any other number as it is."""
    return math.copysign(MAX_FLOAT, number) if MAX_FLOAT < abs(number) < _OUT_OF_RANGE else number


def round_floats(members: Members, message: DescMessage, value: Any) -> None:
    """Round the values of all float fields in a parsed JSON object, in place."""
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        member = members.of(message).get(key)
        if member is None:
            continue
        if member.is_float:
            value[key] = _rounded(member, item)
        elif member.child is not None:
            for _, element in member.elements(item):
                round_floats(members, member.child, element)


def _rounded(member: Member, item: Any) -> Any:
    if member.is_list and isinstance(item, list):
        return [_number(element) for element in item]
    if member.is_map and isinstance(item, dict):
        return {key: _number(element) for key, element in item.items()}
    return _number(item)


def _number(item: Any) -> Any:
    """Round a number, or the text of one; leave everything else for the codec to judge."""
    is_number = isinstance(item, int | float) and not isinstance(item, bool)
    if not is_number and not (isinstance(item, str) and _NUMBER.fullmatch(item)):
        return item
    try:
        number = float(item)
    except OverflowError:
        return item
    return round_to_float(number) if MAX_FLOAT < abs(number) < _OUT_OF_RANGE else item
