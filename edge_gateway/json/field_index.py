"""An index of message fields by their JSON and proto names, built once for each type."""

from typing import Any

from protobuf import DescField, DescFieldValueList, DescFieldValueMap, DescMessage, ScalarType

from edge_gateway.routing.field_types import field_element, is_opaque

_INTEGER_WRAPPERS = {"google.protobuf." + name for name in ("Int32Value", "Int64Value", "UInt32Value", "UInt64Value")}
_FLOAT_WRAPPER = "google.protobuf.FloatValue"
_INTEGERS = set(ScalarType) - {
    ScalarType.BOOL,
    ScalarType.STRING,
    ScalarType.BYTES,
    ScalarType.FLOAT,
    ScalarType.DOUBLE,
}


class IndexedField:
    """A field, and the form of its JSON."""

    __slots__ = ("child", "desc", "has_integer_keys", "is_float", "is_integer", "is_list", "is_map", "oneof")

    def __init__(self, field: DescField) -> None:
        self.desc = field
        value = field.value
        self.is_list = isinstance(value, DescFieldValueList)
        self.is_map = isinstance(value, DescFieldValueMap)
        self.oneof = None if isinstance(value, DescFieldValueList | DescFieldValueMap) else value.oneof
        element = field_element(field)
        self.child = element if isinstance(element, DescMessage) and not is_opaque(element) else None
        self.is_integer = element in _INTEGERS or getattr(element, "type_name", "") in _INTEGER_WRAPPERS
        self.is_float = element is ScalarType.FLOAT or getattr(element, "type_name", "") == _FLOAT_WRAPPER
        self.has_integer_keys = isinstance(value, DescFieldValueMap) and value.key in _INTEGERS

    def elements(self, item: Any) -> list[tuple[str, Any]]:
        """Return the single values of the field's JSON, each with its index or key as a suffix of the path."""
        if self.is_list:
            return [(f"[{index}]", element) for index, element in enumerate(item)] if isinstance(item, list) else []
        if self.is_map:
            return [(f'["{key}"]', element) for key, element in item.items()] if isinstance(item, dict) else []
        return [("", item)]


class FieldIndex:
    """The fields of every type, by either name."""

    def __init__(self) -> None:
        self._by_type: dict[str, dict[str, IndexedField]] = {}
        self._simple: dict[str, bool] = {}

    def of(self, message: DescMessage) -> dict[str, IndexedField]:
        """Return the fields of a type by both of their names."""
        fields = self._by_type.get(message.type_name)
        if fields is None:
            fields = {}
            for field in message.fields:
                fields[field.name] = fields[field.json_name] = IndexedField(field)
            self._by_type[message.type_name] = fields
        return fields

    def are_simple(self, message: DescMessage) -> bool:
        """Return whether `is_plain` suffices to show that a text of this type needs no check of its parsed form."""
        known = self._simple.get(message.type_name)
        if known is None:
            known = self._simple[message.type_name] = all(map(_has_simple_fields, _reachable(message)))
        return known


def _reachable(message: DescMessage) -> list[DescMessage]:
    """Return a type and, transitively, all message types of its fields."""
    found = {message.type_name: message}
    left = [message]
    while left:
        for field in left.pop().fields:
            element = field_element(field)
            if isinstance(element, DescMessage) and element.type_name not in found:
                found[element.type_name] = element
                left.append(element)
    return list(found.values())


def _has_simple_fields(message: DescMessage) -> bool:
    """Return whether a type has no oneof, no Any, and no second spelling of a name without a `_`."""
    if is_opaque(message):
        return message.type_name != "google.protobuf.Any"
    return not message.oneofs and all(
        field.name == field.json_name or "_" in field.name + field.json_name for field in message.fields
    )
