"""Finds the field at fault in JSON that the codec has refused, and says what it wants."""

from typing import Any

from protobuf import DescField, DescMessage, Registry, ScalarType, message_from_json_value

from edge_gateway.errors import EdgeError, invalid_argument
from edge_gateway.json.field_index import FieldIndex, IndexedField
from edge_gateway.json.json_parsing import JsonViolation
from edge_gateway.routing.field_types import field_element, is_opaque

_SCALAR_WANTS = {
    ScalarType.BOOL: "true or false",
    ScalarType.STRING: "a string",
    ScalarType.BYTES: "a base64 string",
    ScalarType.FLOAT: 'a number, or one of "NaN", "Infinity" and "-Infinity"',
    ScalarType.DOUBLE: 'a number, or one of "NaN", "Infinity" and "-Infinity"',
    ScalarType.INT32: "an integer of 32 bits",
    ScalarType.SINT32: "an integer of 32 bits",
    ScalarType.SFIXED32: "an integer of 32 bits",
    ScalarType.UINT32: "an unsigned integer of 32 bits",
    ScalarType.FIXED32: "an unsigned integer of 32 bits",
    ScalarType.INT64: "an integer of 64 bits, as a number or a string",
    ScalarType.SINT64: "an integer of 64 bits, as a number or a string",
    ScalarType.SFIXED64: "an integer of 64 bits, as a number or a string",
    ScalarType.UINT64: "an unsigned integer of 64 bits, as a number or a string",
    ScalarType.FIXED64: "an unsigned integer of 64 bits, as a number or a string",
}  # fmt: skip
_TYPE_WANTS = {
    "google.protobuf.Timestamp": 'an RFC 3339 time such as "2026-01-02T03:04:05Z"',
    "google.protobuf.Duration": 'a duration such as "3.5s"',
    "google.protobuf.FieldMask": "field paths in lowerCamelCase, joined by commas",
    "google.protobuf.Any": 'an object with the "@type" of a known message',
    "google.protobuf.Struct": "an object",
    "google.protobuf.ListValue": "a list",
}  # fmt: skip


class JsonDiagnostics:
    """Asks the codec about one part after the other, and never second-guesses it."""

    def __init__(self, registry: Registry, members: FieldIndex) -> None:
        self._registry = registry
        self._members = members

    def find(self, message: DescMessage, value: Any) -> EdgeError:
        """The error for a value that the codec refuses as a whole."""
        refused = self._locate(message, value)
        return refused.as_error() if refused else invalid_argument(f"the body is not a valid {message.name}")

    def _locate(self, message: DescMessage, value: Any) -> JsonViolation | None:
        if not isinstance(value, dict) or is_opaque(message):
            return JsonViolation(f"must be {_TYPE_WANTS.get(message.type_name, 'an object')}")
        for key, item in value.items():
            member = self._members.of(message).get(key)
            if member is not None and not self._takes(message, {key: item}):
                return self._locate_member(message, member, item)
        return None

    def _locate_member(self, message: DescMessage, member: IndexedField, item: Any) -> JsonViolation:
        key = member.field.json_name
        if (member.is_list and not isinstance(item, list)) or (member.is_map and not isinstance(item, dict)):
            return JsonViolation("must be a list" if member.is_list else "must be an object", key)
        for label, element in member.elements(item):
            alone = [element] if member.is_list else {label[2:-2]: element} if member.is_map else element
            if (member.is_list or member.is_map) and self._takes(message, {key: alone}):
                continue
            path = [key, label] if label else [key]
            if element is None:
                return JsonViolation("must not be null", *path)
            inner = self._locate(member.child, element) if member.child is not None else None
            if inner is not None:
                inner.path[:0] = path
                return inner
            return JsonViolation(f"must be {_wants(member.field)}", *path)
        return JsonViolation(f"must be {_wants(member.field)}", key)

    def _takes(self, message: DescMessage, value: Any) -> bool:
        try:
            message_from_json_value(message.type, value, registry=self._registry)
        except (ValueError, TypeError, OverflowError, RecursionError):
            return False
        return True


def _wants(field: DescField) -> str:
    element = field_element(field)
    if isinstance(element, ScalarType):
        return _SCALAR_WANTS[element]
    if isinstance(element, DescMessage):
        return _TYPE_WANTS.get(element.type_name, f"a valid {element.name}")
    names = [value.name for value in element.values]
    return "one of " + ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
