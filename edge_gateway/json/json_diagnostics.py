"""Finds the invalid field in JSON that the codec rejects, and describes the expected form."""

from typing import Any

from protobuf import DescField, DescMessage, Registry, ScalarType, message_from_json_value

from edge_gateway.errors import EdgeError, invalid_argument
from edge_gateway.json.field_index import FieldIndex, IndexedField
from edge_gateway.json.json_parsing import JsonViolation
from edge_gateway.routing.field_types import field_element, is_opaque

_SCALAR_FORMS = {
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
_TYPE_FORMS = {
    "google.protobuf.Timestamp": 'an RFC 3339 time such as "2026-01-02T03:04:05Z"',
    "google.protobuf.Duration": 'a duration such as "3.5s"',
    "google.protobuf.FieldMask": "field paths in lowerCamelCase, joined by commas",
    "google.protobuf.Any": 'an object with the "@type" of a known message',
    "google.protobuf.Struct": "an object",
    "google.protobuf.ListValue": "a list",
}  # fmt: skip


class JsonDiagnostics:
    """Decodes one part after the other, so that the codec alone decides what is valid."""

    def __init__(self, registry: Registry, fields: FieldIndex) -> None:
        self._registry = registry
        self._fields = fields

    def diagnose(self, message: DescMessage, value: Any) -> EdgeError:
        """Return the error of a value that the codec rejects as a whole."""
        violation = self._locate(message, value)
        return violation.as_error() if violation else invalid_argument(f"the body is not a valid {message.name}")

    def _locate(self, message: DescMessage, value: Any) -> JsonViolation | None:
        if not isinstance(value, dict) or is_opaque(message):
            return JsonViolation(f"must be {_TYPE_FORMS.get(message.type_name, 'an object')}")
        for key, item in value.items():
            field = self._fields.of(message).get(key)
            if field is not None and not self._takes(message, {key: item}):
                return self._locate_field(message, field, item)
        return None

    def _locate_field(self, message: DescMessage, field: IndexedField, item: Any) -> JsonViolation:
        key = field.desc.json_name
        if (field.is_list and not isinstance(item, list)) or (field.is_map and not isinstance(item, dict)):
            return JsonViolation("must be a list" if field.is_list else "must be an object", key)
        for label, element in field.elements(item):
            alone = [element] if field.is_list else {label[2:-2]: element} if field.is_map else element
            if (field.is_list or field.is_map) and self._takes(message, {key: alone}):
                continue
            path = [key, label] if label else [key]
            if element is None:
                return JsonViolation("must not be null", *path)
            inner = self._locate(field.child, element) if field.child is not None else None
            if inner is not None:
                inner.path[:0] = path
                return inner
            return JsonViolation(f"must be {_expected(field.desc)}", *path)
        return JsonViolation(f"must be {_expected(field.desc)}", key)

    def _takes(self, message: DescMessage, value: Any) -> bool:
        try:
            message_from_json_value(message.type, value, registry=self._registry)
        except (ValueError, TypeError, OverflowError, RecursionError):
            return False
        return True


def _expected(field: DescField) -> str:
    element = field_element(field)
    if isinstance(element, ScalarType):
        return _SCALAR_FORMS[element]
    if isinstance(element, DescMessage):
        return _TYPE_FORMS.get(element.type_name, f"a valid {element.name}")
    names = [value.name for value in element.values]
    return "one of " + ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
