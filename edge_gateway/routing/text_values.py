"""Parses the text of path variables and query parameters as values of fields."""

import binascii
import math
import re
from base64 import b64decode
from collections.abc import Callable
from typing import Any

from protobuf import DescEnum, DescMessage, ScalarType

from edge_gateway.routing.float_range import MAX_FLOAT, round_to_float

Parse = Callable[[str], Any]

_PREFIX = "google.protobuf."
_INTEGER = re.compile(r"-?[0-9]{1,20}")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,4})?")
_FLOAT_NAMES = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_BOOLS = {
    **dict.fromkeys(("true", "True", "TRUE", "1"), True),
    **dict.fromkeys(("false", "False", "FALSE", "0"), False),
}
_CAMEL = re.compile(r"(?<=[a-z0-9])[A-Z]|(?<!^)(?<!\.)[A-Z]")

_RANGES = {
    **dict.fromkeys((ScalarType.INT32, ScalarType.SINT32, ScalarType.SFIXED32), (-(2**31), 2**31 - 1)),
    **dict.fromkeys((ScalarType.INT64, ScalarType.SINT64, ScalarType.SFIXED64), (-(2**63), 2**63 - 1)),
    **dict.fromkeys((ScalarType.UINT32, ScalarType.FIXED32), (0, 2**32 - 1)),
    **dict.fromkeys((ScalarType.UINT64, ScalarType.FIXED64), (0, 2**64 - 1)),
}
_WRAPPED = {
    _PREFIX + "BoolValue": ScalarType.BOOL,
    _PREFIX + "BytesValue": ScalarType.BYTES,
    _PREFIX + "DoubleValue": ScalarType.DOUBLE,
    _PREFIX + "FloatValue": ScalarType.FLOAT,
    _PREFIX + "Int32Value": ScalarType.INT32,
    _PREFIX + "Int64Value": ScalarType.INT64,
    _PREFIX + "StringValue": ScalarType.STRING,
    _PREFIX + "UInt32Value": ScalarType.UINT32,
    _PREFIX + "UInt64Value": ScalarType.UINT64,
}
_EXAMPLES = {
    _PREFIX + "Timestamp": "an RFC 3339 time such as 2026-01-02T03:04:05Z",
    _PREFIX + "Duration": "a duration such as 3.5s",
}
FIELD_MASK = _PREFIX + "FieldMask"


def parser_for(element: ScalarType | DescEnum | DescMessage) -> Parse | None:
    """Return the parser of a type, which raises ValueError with the expected form; None if it has no text form."""
    if isinstance(element, ScalarType):
        return _scalar(element)
    if isinstance(element, DescEnum):
        return _enum(element)
    if element.type_name in _WRAPPED:
        return _wrapper(element, _scalar(_WRAPPED[element.type_name]))
    if element.type_name in _EXAMPLES:
        return _by_json(element, _EXAMPLES[element.type_name])
    if element.type_name == FIELD_MASK:
        return lambda text: _mask(element, text)
    return None


def _scalar(scalar: ScalarType) -> Parse:
    if scalar is ScalarType.STRING:
        return _string
    if scalar is ScalarType.BOOL:
        return _bool
    if scalar is ScalarType.BYTES:
        return _bytes
    if scalar in _RANGES:
        low, high = _RANGES[scalar]
        return lambda text: _integer(text, low, high)
    return _float if scalar is ScalarType.FLOAT else _double


def _string(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not hold the character NUL")
    return text


def _bool(text: str) -> bool:
    value = _BOOLS.get(text)
    if value is None:
        raise ValueError("must be true or false")
    return value


def _bytes(text: str) -> bytes:
    standard = text.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("must be base64") from None


def _integer(text: str, low: int, high: int) -> int:
    if _INTEGER.fullmatch(text) is None or not low <= (value := int(text)) <= high:
        raise ValueError(f"must be an integer from {low} to {high}")
    return value


def _double(text: str) -> float:
    if text in _FLOAT_NAMES:
        return _FLOAT_NAMES[text]
    value = float(text) if _FLOAT.fullmatch(text) else math.inf
    if math.isinf(value):
        raise ValueError("must be a number in range")
    return value


def _float(text: str) -> float:
    value = round_to_float(_double(text))
    if text not in _FLOAT_NAMES and abs(value) > MAX_FLOAT:
        raise ValueError("must be a number in range")
    return value


def _enum(desc: DescEnum) -> Parse:
    by_text = {str(value.number): value.number for value in desc.values}
    by_text.update({value.name: value.number for value in desc.values})
    wanted = "must be one of " + ", ".join(value.name for value in desc.values[:20])

    def parse(text: str) -> Any:
        number = by_text.get(text)
        if number is None:
            raise ValueError(wanted)
        return desc.type(number)

    return parse


def _wrapper(desc: DescMessage, parse: Parse) -> Parse:
    return lambda text: desc.type(value=parse(text))


def _by_json(desc: DescMessage, wanted: str) -> Parse:
    def parse(text: str) -> Any:
        try:
            # Neither form contains a character that JSON escapes.
            return desc.type.from_json(f'"{text}"') if text.isprintable() and '"' not in text else _fail()
        except (ValueError, TypeError):
            raise ValueError(f"must be {wanted}") from None

    return parse


def _mask(desc: DescMessage, text: str) -> Any:
    """Parse a FieldMask in either spelling of its paths; reject paths that JSON cannot spell."""
    mask = desc.type(paths=[_snake(path) for path in text.split(",") if path])
    try:
        mask.to_json()
    except ValueError:
        raise ValueError("must be field paths joined by commas") from None
    return mask


def _fail() -> Any:
    raise ValueError


def _snake(path: str) -> str:
    return _CAMEL.sub(lambda found: "_" + found.group().lower(), path)
