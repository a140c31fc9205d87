"""Messages for the log: as JSON, without the fields that their proto marks `(shop.options.v1.sensitive)`."""

from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from shop.options.v1 import options_pb2

_MASK = "***"


def redacted(message: Message) -> dict[str, Any]:
    """Return the message as JSON with every sensitive value masked, at any depth."""
    entry: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    kind: Any = message.DESCRIPTOR  # the stubs name upb's class apart
    return _mask(entry, kind)


def _mask(entry: dict[str, Any], kind: Descriptor) -> dict[str, Any]:
    secret, nested = _plan(kind)
    for name in entry.keys() & secret:
        entry[name] = _MASK
    for name, inner in nested.items():
        match entry.get(name):
            case dict() as value:
                entry[name] = _mask(value, inner)
            case list() as values:
                entry[name] = [_mask(value, inner) for value in values]
    return entry


@cache
def _plan(kind: Descriptor) -> tuple[frozenset[str], dict[str, Descriptor]]:
    """Return a message type's sensitive fields, and those that lead to further messages of ours."""
    secret = frozenset(f.name for f in kind.fields if f.GetOptions().Extensions[options_pb2.sensitive])
    nested = {
        f.name: f.message_type
        for f in kind.fields
        if f.name not in secret and f.message_type is not None and _is_ours(f.message_type)
    }
    return secret, nested


def _is_ours(kind: Descriptor) -> bool:
    return bool(kind.full_name.startswith("shop.")) and not kind.GetOptions().map_entry
