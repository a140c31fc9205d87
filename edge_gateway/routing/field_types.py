"""The types of field values, for every kind of field."""

from typing import Any

from protobuf import (
    DescField,
    DescFieldValueEnum,
    DescFieldValueList,
    DescFieldValueMap,
    DescFieldValueMessage,
    DescFieldValueScalar,
    DescMessage,
)

#: Well-known types whose JSON is not an object of their fields.
_OPAQUE = {
    "google.protobuf." + name
    for name in (
        "Any", "Struct", "Value", "ListValue", "Timestamp", "Duration", "FieldMask", "BoolValue", "BytesValue",
        "DoubleValue", "FloatValue", "Int32Value", "Int64Value", "StringValue", "UInt32Value", "UInt64Value",
    )
}  # fmt: skip


def field_element(field: DescField) -> Any:
    """Return the type of a field's single values: a ScalarType, a DescEnum or a DescMessage."""
    match field.value:
        case DescFieldValueScalar(scalar=element) | DescFieldValueList(element=element):
            return element
        case DescFieldValueMessage(message=element) | DescFieldValueMap(value=element):
            return element
        case DescFieldValueEnum(enum=element):
            return element


def is_opaque(message: DescMessage) -> bool:
    """Return whether a type's JSON is a special form rather than an object of its fields."""
    return message.type_name in _OPAQUE
