"""Binds path variables and query parameters to the fields of a request message.

The path wins: a query or body that names a field of the path must agree with it, or is refused.
"""

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

from edge_gateway.errors import EdgeError, invalid_argument, invalid_field
from edge_gateway.fieldtypes import field_element
from edge_gateway.router import decode_percent
from edge_gateway.textvalue import FIELD_MASK, parser_for

#: Query parameters that speak to the edge itself, unless the request has a field of that name.
SYSTEM_PARAMETERS = {"$fields", "fields", "$alt", "alt", "$prettyPrint", "prettyPrint", "key"}

_MAX_REMEMBERED = 256
#: As deep as the codecs go.
_MAX_STEPS = 99


class BindingError(ValueError):
    """A rule that cannot be bound to its request message."""


class Slot:
    """A field that text can fill, and the message fields that lead to it."""

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
        #: One text for both spellings of the field.
        self.key = tuple(step.name for step in path)
        #: The path as JSON spells it, for error messages.
        self.name = ".".join(step.json_name for step in path)
        self.is_list = isinstance(field.value, DescFieldValueList)
        self.is_map = isinstance(field.value, DescFieldValueMap)
        self.is_text = not (self.is_list or self.is_map) and element is ScalarType.STRING
        self.is_mask = not self.is_list and getattr(element, "type_name", "") == FIELD_MASK
        self.parse = parser_for(element)
        #: The attribute that is the field, where it is one of the message's own.
        self._attribute = "" if parents or getattr(field.value, "oneof", None) else field.local_name
        self.oneofs = tuple(
            ((*self.key[:depth], oneof.name), step.name)
            for depth, step in enumerate(path)
            if (oneof := getattr(step.value, "oneof", None)) is not None
        )

    def value(self, text: str) -> Any:
        """Parses text, or raises EdgeError 400 that names the field."""
        if self.parse is None:
            raise invalid_field(self.name, "is a message; name one of its fields")
        try:
            return self.parse(text)
        except ValueError as error:
            raise invalid_field(self.name, str(error)) from None

    def holder(self, message: Message) -> Message:
        """Returns the message that holds the field, made where it is missing."""
        for parent in self.parents:
            inner = message[parent]
            if inner is None:
                inner = field_element(parent).type()
                message[parent] = inner
            message = inner
        return message

    def put(self, message: Message, value: Any) -> None:
        """Sets the field of a message that says nothing else yet."""
        if self._attribute:
            setattr(message, self._attribute, value)
        else:
            self.holder(message)[self.field] = value

    def place(self, message: Message, value: Any) -> None:
        """Sets the field; refuses to change what a body has said otherwise."""
        holder = self.holder(message) if self.parents else message
        if self.field in holder and holder[self.field] != value:
            raise invalid_field(self.name, "differs from the value in the path")
        holder[self.field] = value


def resolve(message: DescMessage, names: Iterable[str]) -> tuple[DescField, ...]:
    """Follows field names of either spelling, or raises KeyError with the name that does not lead on."""
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


def variable_slot(message: DescMessage, names: tuple[str, ...]) -> Slot:
    """The slot of a path variable, or BindingError at start."""
    dotted = ".".join(names)
    try:
        slot = Slot(resolve(message, names))
    except KeyError:
        raise BindingError(f"path variable {dotted}: {message.type_name} has no such field") from None
    if slot.is_list or slot.is_map:
        raise BindingError(f"path variable {dotted} is a repeated field")
    if slot.parse is None:
        raise BindingError(f"path variable {dotted} is a message")
    return slot


def parse_query(raw: bytes) -> list[tuple[str, str]]:
    """Splits a query string; `+` is a space, as HTML forms write it."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise invalid_argument("the query string is not UTF-8") from None
    pairs = (part.partition("=") for part in text.split("&") if part)
    if "%" not in text and "+" not in text:
        return [(name, value) for name, _, value in pairs]
    return [(_decode(name), _decode(value)) for name, _, value in pairs]


def _decode(text: str) -> str:
    return decode_percent(text.replace("+", " "))


class QueryBinder:
    """Binds the parameters of one rule; what it has resolved once it remembers."""

    def __init__(
        self, message: DescMessage, *, variables: Iterable[Slot], body: DescField | None, closed: bool
    ) -> None:
        self._message = message
        #: Whether the body is the whole request, so that nothing is left to the query.
        self._closed = closed
        self._bound = {slot.key for slot in variables}
        self._body = body
        self._slots: dict[str, Slot] = {}
        for field in message.fields:
            self._slots[field.name] = self._slots[field.json_name] = Slot((field,))

    def bind(self, message: Message, raw: bytes) -> dict[str, str]:
        """Sets the fields that a query string names; returns the parameters that speak to the edge."""
        system: dict[str, str] = {}
        given: set[tuple[str, ...]] = set()
        chosen: dict[tuple[str, ...], str] = {}
        for name, text in parse_query(raw):
            if name in SYSTEM_PARAMETERS and name not in self._slots:
                if system.setdefault(name.removeprefix("$"), text) != text:
                    raise invalid_field(name, "occurs more than once")
                continue
            if self._closed:
                raise invalid_argument(
                    f"query parameter {name[:100]!r}: every field belongs to the body",
                    [(name[:100], "belongs to the request body")],
                )
            self._bind_one(message, name, text, given, chosen)
        return system

    def _bind_one(
        self,
        message: Message,
        name: str,
        text: str,
        given: set[tuple[str, ...]],
        chosen: dict[tuple[str, ...], str],
    ) -> None:
        slot = self._slots.get(name)
        entry: str | None = None
        if slot is None:
            name, entry = _split_entry(name)
            slot = self._resolve(name)
        if self._body is not None and slot.key[0] == self._body.name:
            raise invalid_field(slot.name, "belongs to the request body")
        for oneof, member in slot.oneofs:
            if chosen.setdefault(oneof, member) != member:
                raise invalid_field(slot.name, f"excludes {chosen[oneof]}: both belong to {oneof[-1]}")
        if slot.key in self._bound:
            slot.place(message, slot.value(text))
        elif slot.is_map:
            _put(slot, message, entry, text)
        elif entry is not None:
            raise invalid_field(slot.name, "is not a map")
        elif slot.is_list:
            slot.holder(message)[slot.field].append(slot.value(text))
        else:
            if slot.key in given and not slot.is_mask:
                raise invalid_field(slot.name, "occurs more than once")
            _set(slot, message, slot.value(text), again=slot.key in given)
            given.add(slot.key)

    def _resolve(self, name: str) -> Slot:
        slot = self._slots.get(name)
        if slot is None:
            try:
                slot = Slot(resolve(self._message, name.split(".", _MAX_STEPS)))
            except KeyError:
                raise unknown_parameter(name) from None
            if len(self._slots) < _MAX_REMEMBERED:
                self._slots[name] = slot
        return slot


def unknown_parameter(name: str) -> EdgeError:
    shown = name[:100]
    return invalid_argument(f"unknown query parameter {shown!r}", [(shown, "is not a field of the request")])


def _split_entry(name: str) -> tuple[str, str | None]:
    head, bracket, entry = name.removesuffix("]").partition("[")
    return (head, entry) if head and bracket and name.endswith("]") else (name, None)


def _set(slot: Slot, message: Message, value: Any, *, again: bool) -> None:
    holder = slot.holder(message) if slot.parents else message
    if again:
        holder[slot.field].paths.extend(value.paths)
    else:
        holder[slot.field] = value


def _put(slot: Slot, message: Message, entry: str | None, text: str) -> None:
    if entry is None:
        raise invalid_field(slot.name, f"is a map; write {slot.name}[key]=value")
    kind = slot.field.value
    assert isinstance(kind, DescFieldValueMap)
    parse_key = parser_for(kind.key)
    assert parse_key is not None
    try:
        key = parse_key(entry)
    except ValueError as error:
        raise invalid_field(f"{slot.name}[{entry}]", f"key {error}") from None
    entries = slot.holder(message)[slot.field]
    if key in entries:
        raise invalid_field(f"{slot.name}[{entry}]", "occurs more than once")
    entries[key] = slot.value(text)
