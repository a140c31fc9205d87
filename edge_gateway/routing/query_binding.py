"""Binds query parameters to the fields of a request message.

The path wins: a query or body that sets a field of the path to another value is an error.
"""

from collections.abc import Iterable
from typing import Any

from protobuf import DescField, DescFieldValueMap, DescMessage, Message

from edge_gateway.errors import EdgeError, invalid_argument, invalid_field
from edge_gateway.routing.field_binding import FieldBinding, resolve
from edge_gateway.routing.router import decode_percent
from edge_gateway.routing.text_values import parser_for

#: Query parameters for the edge itself, unless the request has a field of that name.
SYSTEM_PARAMETERS = {"$fields", "fields", "$alt", "alt", "$prettyPrint", "prettyPrint", "key"}

_MAX_REMEMBERED = 256
#: The depth limit of the codecs.
_MAX_STEPS = 99


def parse_query(raw: bytes) -> list[tuple[str, str]]:
    """Parse a query string; `+` is a space, as in HTML forms."""
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
    """Binds the parameters of one rule, and caches resolved names."""

    def __init__(
        self, message: DescMessage, *, variables: Iterable[FieldBinding], body: DescField | None, closed: bool
    ) -> None:
        self._message = message
        #: Whether the body is the whole request, so that query parameters cannot set fields.
        self._closed = closed
        self._bound = {binding.key for binding in variables}
        self._body = body
        self._bindings: dict[str, FieldBinding] = {}
        for field in message.fields:
            self._bindings[field.name] = self._bindings[field.json_name] = FieldBinding((field,))

    def bind(self, message: Message, raw: bytes) -> dict[str, str]:
        """Set the fields that a query string names; return the parameters for the edge itself. Raise EdgeError 400."""
        system: dict[str, str] = {}
        given: set[tuple[str, ...]] = set()
        chosen: dict[tuple[str, ...], str] = {}
        for name, text in parse_query(raw):
            if name in SYSTEM_PARAMETERS and name not in self._bindings:
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
        binding = self._bindings.get(name)
        entry: str | None = None
        if binding is None:
            name, entry = _split_entry(name)
            binding = self._resolve(name)
        if self._body is not None and binding.key[0] == self._body.name:
            raise invalid_field(binding.name, "belongs to the request body")
        for oneof, member in binding.oneofs:
            if chosen.setdefault(oneof, member) != member:
                raise invalid_field(binding.name, f"excludes {chosen[oneof]}: both belong to {oneof[-1]}")
        if binding.key in self._bound:
            binding.set_checked(message, binding.value(text))
        elif binding.is_map:
            _put(binding, message, entry, text)
        elif entry is not None:
            raise invalid_field(binding.name, "is not a map")
        elif binding.is_list:
            binding.parent(message)[binding.field].append(binding.value(text))
        else:
            if binding.key in given and not binding.is_mask:
                raise invalid_field(binding.name, "occurs more than once")
            _set(binding, message, binding.value(text), again=binding.key in given)
            given.add(binding.key)

    def _resolve(self, name: str) -> FieldBinding:
        binding = self._bindings.get(name)
        if binding is None:
            try:
                binding = FieldBinding(resolve(self._message, name.split(".", _MAX_STEPS)))
            except KeyError:
                raise unknown_parameter(name) from None
            if len(self._bindings) < _MAX_REMEMBERED:
                self._bindings[name] = binding
        return binding


def unknown_parameter(name: str) -> EdgeError:
    """Return a 400 for a query parameter that is not a field."""
    shown = name[:100]
    return invalid_argument(f"unknown query parameter {shown!r}", [(shown, "is not a field of the request")])


def _split_entry(name: str) -> tuple[str, str | None]:
    head, bracket, entry = name.removesuffix("]").partition("[")
    return (head, entry) if head and bracket and name.endswith("]") else (name, None)


def _set(binding: FieldBinding, message: Message, value: Any, *, again: bool) -> None:
    holder = binding.parent(message) if binding.parents else message
    if again:
        holder[binding.field].paths.extend(value.paths)
    else:
        holder[binding.field] = value


def _put(binding: FieldBinding, message: Message, entry: str | None, text: str) -> None:
    if entry is None:
        raise invalid_field(binding.name, f"is a map; write {binding.name}[key]=value")
    kind = binding.field.value
    assert isinstance(kind, DescFieldValueMap)
    parse_key = parser_for(kind.key)
    assert parse_key is not None
    try:
        key = parse_key(entry)
    except ValueError as error:
        raise invalid_field(f"{binding.name}[{entry}]", f"key {error}") from None
    entries = binding.parent(message)[binding.field]
    if key in entries:
        raise invalid_field(f"{binding.name}[{entry}]", "occurs more than once")
    entries[key] = binding.value(text)
