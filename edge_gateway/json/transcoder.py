"""Turns an HTTP request into a gRPC request message, and reply messages into JSON."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from protobuf import DescField, DescFieldValueMessage, DescMessage, Message

from edge_gateway.errors import internal, unsupported_media_type
from edge_gateway.json.field_selection import Selection, parse_fields, select
from edge_gateway.json.protojson import JsonCodec, Print
from edge_gateway.routing.field_types import field_element, is_opaque
from edge_gateway.routing.router import Match
from edge_gateway.routing.rules import Rule

_NOTHING: dict[str, str] = {}
_JSON = b"application/json"
_OCTETS = b"application/octet-stream"
_STRUCT = "google.protobuf.Struct"
_IDENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class View:
    """How a client wants its replies."""

    how: Print
    selection: Selection


class Transcoder:
    """Applies rules to requests and replies."""

    def __init__(self, codec: JsonCodec, default: Print) -> None:
        self._codec = codec
        self._default = View(default, {})

    def request(
        self, match: Match[Rule], body: bytes, content_type: bytes, query: bytes, *, of_stream: bool = False
    ) -> tuple[Message, dict[str, str]]:
        """Builds a request, or raises EdgeError 400 or 415; also returns the query's words to the edge itself."""
        rule = match.target
        if rule.has_body and body:
            message = self._from_body(rule, body, b"" if of_stream and not rule.raw_request else content_type)
            for slot, text in zip(rule.variables, match.captured, strict=True):
                slot.place(message, slot.value(text))
        else:
            message = rule.request_type()
            for slot, text in zip(rule.variables, match.captured, strict=True):
                slot.put(message, slot.value(text))
        system = rule.query.bind(message, query) if query else _NOTHING
        if rule.mask is not None and rule.mask not in message and body:
            message[rule.mask] = field_element(rule.mask).type(paths=self._mask_paths(rule, body))
        return message, system

    def parse(self, rule: Rule, reply: bytes) -> Message:
        """Reads a reply; what cannot be read is the back end's fault."""
        try:
            return rule.reply_type.from_binary(reply)
        except (ValueError, RecursionError) as error:
            raise internal("the reply does not fit its type") from error

    def _from_body(self, rule: Rule, body: bytes, content_type: bytes) -> Message:
        if rule.raw_request:
            return _raw(rule, body, content_type)
        if content_type and not is_json(content_type):
            raise unsupported_media_type("the body must be application/json in UTF-8")
        if rule.body_field is not None:
            return self._codec.decode_field(rule.rpc.input, rule.body_field, body)
        return self._codec.decode(rule.rpc.input, body)

    def _mask_paths(self, rule: Rule, body: bytes) -> list[str]:
        assert rule.body_field is not None
        element = field_element(rule.body_field)
        bound = {slot.key[1:] for slot in rule.variables if slot.key[0] == rule.body_field.name}
        value = json.loads(body)
        if not isinstance(element, DescMessage) or not isinstance(value, dict):
            return []
        return [".".join(path) for path in _leaves(element, value, ()) if path not in bound]

    def view(self, rule: Rule, system: dict[str, str], accept: bytes) -> View:
        """Reads how the client wants its replies, from `alt`, `fields` and the parameters of Accept."""
        if not system and b";" not in accept:
            return self._default
        wanted = _json_parameters(accept.decode("latin-1"))
        wanted.update(_json_parameters(system.get("alt", "")))
        default = self._default.how
        how = Print(
            emit_defaults=_choice(wanted, "defaults", "emit", "omit", default.emit_defaults),
            proto_names=_choice(wanted, "names", "proto", "json", default.proto_names),
            enum_numbers=_choice(wanted, "enum-encoding", "int", "string", default.enum_numbers),
            # A line or an event is one line.
            pretty=system.get("prettyPrint", "") in ("true", "1") and not rule.rpc.server_streaming,
        )
        element = field_element(rule.response_field) if rule.response_field is not None else rule.rpc.output
        text = system.get("fields", "")
        selects = text and isinstance(element, DescMessage) and not rule.raw_response
        return View(how, parse_fields(text, element, proto_names=how.proto_names) if selects else {})

    def reply(self, rule: Rule, message: Message, view: View) -> tuple[bytes, bytes]:
        """Writes a reply, or the part of it that `response_body` names; returns its media type and body."""
        if rule.raw_response:
            return _raw_reply(rule, message)
        how = view.how
        if rule.response_field is None and not view.selection and not how.pretty:
            return _JSON, self._codec.encode(message, how)
        value = self._codec.to_value(message, how)
        if rule.response_field is not None:
            value = self._field_value(rule, rule.response_field, value, how)
        return _JSON, write_json(select(value, view.selection), pretty=how.pretty)

    def _field_value(self, rule: Rule, field: DescField, value: Any, how: Print) -> Any:
        key = field.name if how.proto_names else field.json_name
        if key not in value:  # unset: what an empty reply would show of it, or null
            value = self._codec.to_value(rule.rpc.output.type(), replace(how, emit_defaults=True))
        return value.get(key)


def write_json(value: Any, *, pretty: bool = False) -> bytes:
    """Writes a JSON value."""
    indent, separators = (2, (",", ": ")) if pretty else (None, (",", ":"))
    return json.dumps(value, ensure_ascii=False, indent=indent, separators=separators).encode()


def is_json(content_type: bytes) -> bool:
    """Tells whether a media type is JSON in UTF-8."""
    kind, _, parameters = content_type.lower().partition(b";")
    kind = kind.strip()
    if kind != b"application/json" and not (kind.startswith(b"application/") and kind.endswith(b"+json")):
        return False
    charset = re.search(rb"charset\s*=\s*\"?([^\s;\"]+)", parameters)
    return charset is None or charset[1] in (b"utf-8", b"utf8", b"us-ascii")


def _choice(wanted: dict[str, str], name: str, yes: str, no: str, default: bool) -> bool:  # noqa: FBT001
    value = wanted.get(name)
    return default if value not in (yes, no) else value == yes


def _json_parameters(text: str) -> dict[str, str]:
    """The parameters of the JSON media type in `alt` (`json;enum-encoding=int`) or in an Accept header."""
    for option in text.split(","):
        kind, *parameters = option.split(";")
        if kind.strip() in ("json", "application/json"):
            pairs = (parameter.partition("=") for parameter in parameters)
            return {name.strip(): value.strip().strip('"') for name, _, value in pairs}
    return {}


def _raw(rule: Rule, body: bytes, content_type: bytes) -> Message:
    message = rule.rpc.input.type()
    target: Any = message
    if rule.body_field is not None:
        target = message[rule.body_field] = field_element(rule.body_field).type()
    target.content_type = content_type.decode("latin-1")
    target.data = body
    return message


def _raw_reply(rule: Rule, message: Message) -> tuple[bytes, bytes]:
    held: Any = message if rule.response_field is None else message[rule.response_field]
    if held is None:
        return _OCTETS, b""
    media_type: str = held.content_type
    safe = media_type and media_type.isascii() and media_type.isprintable()
    return media_type.encode() if safe else _OCTETS, held.data


def _leaves(message: DescMessage, value: dict[str, Any], prefix: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The paths of a PATCH body: down to scalars, stopping at lists, maps and types with a form of their own."""
    for key, item in value.items():
        field = next((field for field in message.fields if key in (field.name, field.json_name)), None)
        if field is None:
            continue
        path = (*prefix, field.name)
        element = field_element(field) if isinstance(field.value, DescFieldValueMessage) else None
        if element is None or not isinstance(item, dict) or not item:
            yield path
        elif element.type_name == _STRUCT and all(_IDENT.fullmatch(name) for name in _keys(item)):
            yield from _struct_leaves(item, path)
        elif is_opaque(element):
            yield path
        else:
            yield from _leaves(element, item, path)


def _struct_leaves(value: dict[str, Any], prefix: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for key, item in value.items():
        if isinstance(item, dict) and item:
            yield from _struct_leaves(item, (*prefix, key))
        else:
            yield (*prefix, key)


def _keys(value: dict[str, Any]) -> Iterator[str]:
    for key, item in value.items():
        yield key
        if isinstance(item, dict):
            yield from _keys(item)
