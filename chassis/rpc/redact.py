"""Messages for the log: as JSON, without the fields that their proto marks `(shop.options.v1.sensitive)`."""

from functools import cache
from typing import Any

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.descriptor import Descriptor
from google.protobuf.json_format import Error, MessageToDict
from google.protobuf.message import Message

from shop.options.v1 import options_pb2

_MASK = "***"


def redacted(message: Message) -> dict[str, Any]:
    """Return the message as JSON with every sensitive value masked, at any depth."""
    if isinstance(message, HttpBody):  # its fields are unknown, so none can be masked
        return {"content_type": message.content_type, "data": f"{len(message.data)} bytes"}
    try:
        entry: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    except (Error, TypeError, ValueError):  # such as a Timestamp out of range
        return {"unprintable": message.DESCRIPTOR.full_name}
    kind: Any = message.DESCRIPTOR  # the stubs name upb's class apart
    return _mask(entry, kind)


def _mask(entry: dict[str, Any], kind: Descriptor) -> dict[str, Any]:
    secret, nested = _plan(kind)
    for name in entry.keys() & secret:
        entry[name] = _MASK
    for name, (inner, is_map) in nested.items():
        match entry.get(name):
            case dict() as values if is_map:
                entry[name] = {key: _mask(value, inner) for key, value in values.items()}
            case dict() as value:
                entry[name] = _mask(value, inner)
            case list() as values:
                entry[name] = [_mask(value, inner) for value in values]
    return entry


@cache
def _plan(kind: Descriptor) -> tuple[frozenset[str], dict[str, tuple[Descriptor, bool]]]:
    """Return a message type's sensitive fields, and those that lead to further messages, with whether by a map."""
    secret = frozenset(f.name for f in kind.fields if f.GetOptions().Extensions[options_pb2.sensitive])
    nested = {}
    for field in kind.fields:
        inner: Descriptor | None = field.message_type
        is_map = inner is not None and inner.GetOptions().map_entry
        if inner is not None and is_map:
            inner = inner.fields_by_name["value"].message_type
        if field.name not in secret and inner is not None and inner.full_name.startswith("shop."):
            nested[field.name] = inner, is_map
    return secret, nested
