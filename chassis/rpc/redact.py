"""Messages for the log: as JSON of at most 2 KB, without the fields marked `(shop.options.v1.sensitive)`."""

import json
from functools import cache
from typing import Any

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.descriptor import Descriptor
from google.protobuf.json_format import Error, MessageToDict
from google.protobuf.message import Message

from shop.options.v1 import options_pb2

_MASK = "***"
#: Of a larger message only the size of each field is logged.
_MAX_BYTES = 2_000
_MAX_VALUE = 60


def redacted(message: Message) -> dict[str, Any]:
    """Return the message as JSON with every sensitive value masked, at any depth; of a large one an outline."""
    if isinstance(message, HttpBody):  # its fields are unknown, so none can be masked
        return {"content_type": message.content_type, "data": f"{len(message.data)} bytes"}
    if message.ByteSize() > _MAX_BYTES:
        return _outline(message)
    try:
        entry: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    except (Error, TypeError, ValueError):  # such as a Timestamp out of range
        return {"unprintable": message.DESCRIPTOR.full_name}
    kind: Any = message.DESCRIPTOR  # the stubs name upb's class apart
    masked = _mask(entry, kind)
    return masked if len(json.dumps(masked)) <= _MAX_BYTES else _outline(message)


def _outline(message: Message) -> dict[str, Any]:
    """Return the message's size, its short values, and how large its other fields are."""
    kind: Any = message.DESCRIPTOR
    secret, _ = _plan(kind)
    outline: dict[str, Any] = {"bytes": message.ByteSize()}
    for field, value in message.ListFields():
        if field.name in secret:
            outline[field.name] = _MASK
        elif field.is_repeated:
            outline[field.name] = f"{len(value)} items"
        elif field.message_type is not None:
            outline[field.name] = f"{value.ByteSize()} bytes"
        elif isinstance(value, (str, bytes)):
            short = isinstance(value, str) and len(value) <= _MAX_VALUE
            outline[field.name] = value if short else f"{len(value)} long"
        else:
            outline[field.name] = value
    return outline


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
