"""Binds path variables and query parameters to fields: how text becomes a field's value, and where it is set."""

from collections.abc import Iterable
from typing import Any

from protobuf import (
    DescField,
    DescFieldValueList,
    DescFieldValueMap,
    DescFieldValueMessage,
    DescMessage,
    Message,
    ScalarType,
)

from edge_gateway.errors import invalid_field
from edge_gateway.routing.field_types import field_element
from edge_gateway.routing.text_values import FIELD_MASK, parser_for


class BindingError(ValueError):
    """A rule that cannot be bound to its request message."""


class FieldBinding:
    """A field that text can set, and the message fields that lead to it."""

    __slots__ = (
        "_attribute",
        "field",
        "is_list",
        "is_map",
        "is_mask",
        "is_text",
        "key",
        "name",
        "oneofs",
        "parents",
        "parse",
    )

    def __init__(self, path: tuple[DescField, ...]) -> None:
        *parents, field = path
        element = field_element(field)
        self.parents = tuple(parents)
        self.field = field
        #: The path in proto names, the same for both spellings.
        self.key = tuple(step.name for step in path)
        #: The path as JSON spells it, for error messages.
        self.name = ".".join(step.json_name for step in path)
        self.is_list = isinstance(field.value, DescFieldValueList)
        self.is_map = isinstance(field.value, DescFieldValueMap)
        self.is_text = not (self.is_list or self.is_map) and element is ScalarType.STRING
        self.is_mask = not self.is_list and getattr(element, "type_name", "") == FIELD_MASK
        self.parse = parser_for(element)
        #: The name of the field's attribute, if the message holds the field directly.
        self._attribute = "" if parents or getattr(field.value, "oneof", None) else field.local_name
        self.oneofs = tuple(
            ((*self.key[:depth], oneof.name), step.name)
            for depth, step in enumerate(path)
            if (oneof := getattr(step.value, "oneof", None)) is not None
        )

    def value(self, text: str) -> Any:
        """Parse text, or raise EdgeError 400 that names the field."""
        if self.parse is None:
            raise invalid_field(self.name, "is a message; name one of its fields")
        try:
            return self.parse(text)
        except ValueError as error:
            raise invalid_field(self.name, str(error)) from None

    def parent(self, message: Message) -> Message:
        """Return the message that holds the field, creating it if it is missing."""
        for parent in self.parents:
            inner = message[parent]
            if inner is None:
                inner = field_element(parent).type()
                message[parent] = inner
            message = inner
        return message

    def set(self, message: Message, value: Any) -> None:
        """Set the field of a message in which it is not set."""
        if self._attribute:
            setattr(message, self._attribute, value)
        else:
            self.parent(message)[self.field] = value

    def set_checked(self, message: Message, value: Any) -> None:
        """Set the field, or raise EdgeError 400 if the body set another value."""
        holder = self.parent(message) if self.parents else message
        if self.field in holder and holder[self.field] != value:
            raise invalid_field(self.name, "differs from the value in the path")
        holder[self.field] = value


def resolve(message: DescMessage, names: Iterable[str]) -> tuple[DescField, ...]:
    """Resolve field names of either spelling; raise KeyError with the first name that is unknown."""
    path: list[DescField] = []
    inner: DescMessage | None = message
    for name in names:
        field = _field(inner, name) if inner is not None else None
        if field is None:
            raise KeyError(name)
        path.append(field)
        inner = field.value.message if isinstance(field.value, DescFieldValueMessage) else None
    return tuple(path)


def _field(message: DescMessage, name: str) -> DescField | None:
    return next((field for field in message.fields if name in (field.name, field.json_name)), None)


def variable_binding(message: DescMessage, names: tuple[str, ...]) -> FieldBinding:
    """Return the binding of a path variable, or raise BindingError."""
    dotted = ".".join(names)
    try:
        binding = FieldBinding(resolve(message, names))
    except KeyError:
        raise BindingError(f"path variable {dotted}: {message.type_name} has no such field") from None
    if binding.is_list or binding.is_map:
        raise BindingError(f"path variable {dotted} is a repeated field")
    if binding.parse is None:
        raise BindingError(f"path variable {dotted} is a message")
    return binding
