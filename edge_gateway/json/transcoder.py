"""Transcodes HTTP requests to gRPC request messages, and reply messages to JSON."""

import json
import re
from dataclasses import dataclass, field, replace
from typing import Any

from protobuf import DescField, DescMessage, Message

from edge_gateway.errors import internal, unsupported_media_type
from edge_gateway.json.field_selection import Selection, parse_fields, select
from edge_gateway.json.patch_mask import mask_paths
from edge_gateway.json.protojson import JsonCodec, JsonFormat
from edge_gateway.routing.field_types import field_element
from edge_gateway.routing.router import Match
from edge_gateway.routing.rules import Rule

_NOTHING: dict[str, str] = {}
_JSON = b"application/json"
_OCTETS = b"application/octet-stream"


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """The form of a call's replies: their JSON, and the selected fields."""

    json: JsonFormat
    selection: Selection


@dataclass(frozen=True, slots=True)
class Rendered:
    """A reply as the client receives it."""

    message: Message
    media_type: bytes
    body: bytes
    #: The body compressed, by content coding, as far as clients wanted it.
    compressed: dict[str, bytes] = field(default_factory=dict)


class Transcoder:
    """Applies rules to requests and replies."""

    def __init__(self, codec: JsonCodec, default: JsonFormat) -> None:
        self._codec = codec
        self._default = ResponseFormat(default, {})

    def decode_request(
        self, match: Match[Rule], body: bytes, content_type: bytes, query: bytes, *, of_stream: bool = False
    ) -> tuple[Message, dict[str, str]]:
        """Return the request message and the query parameters for the edge itself, or raise EdgeError 400 or 415."""
        rule = match.target
        if rule.has_body and body:
            message = self._from_body(rule, body, b"" if of_stream and not rule.raw_request else content_type)
            for binding, text in zip(rule.variables, match.captured, strict=True):
                binding.set_checked(message, binding.value(text))
        else:
            message = rule.request_type()
            for binding, text in zip(rule.variables, match.captured, strict=True):
                binding.set(message, binding.value(text))
        system = rule.query.bind(message, query) if query else _NOTHING
        if rule.mask is not None and rule.mask not in message and body:
            message[rule.mask] = field_element(rule.mask).type(paths=mask_paths(rule, body))
        return message, system

    def decode_reply(self, rule: Rule, reply: bytes) -> Message:
        """Decode a reply; raise EdgeError 500 if it is invalid, which is the back end's fault."""
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

    def response_format(self, rule: Rule, system: dict[str, str], accept: bytes) -> ResponseFormat:
        """Return the form of replies that `alt`, `fields` and the parameters of Accept request."""
        if not system and b";" not in accept:
            return self._default
        wanted = _json_parameters(accept.decode("latin-1"))
        wanted.update(_json_parameters(system.get("alt", "")))
        default = self._default.json
        fmt = JsonFormat(
            emit_defaults=_choice(wanted, "defaults", "emit", "omit", default.emit_defaults),
            proto_names=_choice(wanted, "names", "proto", "json", default.proto_names),
            enum_numbers=_choice(wanted, "enum-encoding", "int", "string", default.enum_numbers),
            # A message of a stream is one line.
            pretty=system.get("prettyPrint", "") in ("true", "1") and not rule.rpc.server_streaming,
        )
        element = field_element(rule.response_field) if rule.response_field is not None else rule.rpc.output
        text = system.get("fields", "")
        selects = text and isinstance(element, DescMessage) and not rule.raw_response
        return ResponseFormat(fmt, parse_fields(text, element, proto_names=fmt.proto_names) if selects else {})

    def encode_reply(self, rule: Rule, message: Message, fmt: ResponseFormat) -> Rendered:
        """Encode a reply, or the part of it that `response_body` names."""
        if rule.raw_response:
            return _raw_reply(rule, message)
        if rule.response_field is None and not fmt.selection and not fmt.json.pretty:
            return Rendered(message, _JSON, self._codec.encode(message, fmt.json))
        value = self._codec.to_value(message, fmt.json)
        if rule.response_field is not None:
            value = self._field_value(rule, rule.response_field, value, fmt.json)
        return Rendered(message, _JSON, write_json(select(value, fmt.selection), pretty=fmt.json.pretty))

    def _field_value(self, rule: Rule, field: DescField, value: Any, fmt: JsonFormat) -> Any:
        key = field.name if fmt.proto_names else field.json_name
        if key not in value:  # unset: its default in an empty reply, or null
            value = self._codec.to_value(rule.rpc.output.type(), replace(fmt, emit_defaults=True))
        return value.get(key)


def write_json(value: Any, *, pretty: bool = False) -> bytes:
    """Encode a JSON value."""
    indent, separators = (2, (",", ": ")) if pretty else (None, (",", ":"))
    return json.dumps(value, ensure_ascii=False, indent=indent, separators=separators).encode()


def is_json(content_type: bytes) -> bool:
    """Return whether a media type is JSON in UTF-8."""
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
    """Return the parameters of the JSON media type in `alt` (`json;enum-encoding=int`) or in an Accept header."""
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


def _raw_reply(rule: Rule, message: Message) -> Rendered:
    held: Any = message if rule.response_field is None else message[rule.response_field]
    if held is None:
        return Rendered(message, _OCTETS, b"")
    media_type: str = held.content_type
    safe = media_type and media_type.isascii() and media_type.isprintable()
    return Rendered(message, media_type.encode() if safe else _OCTETS, held.data)
