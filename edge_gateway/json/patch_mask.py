"""Derives the FieldMask of a PATCH from the fields that its body names."""

import json
import re
from collections.abc import Iterator
from typing import Any

from protobuf import DescFieldValueMessage, DescMessage

from edge_gateway.routing.field_types import field_element, is_opaque
from edge_gateway.routing.rules import Rule

_STRUCT = "google.protobuf.Struct"
_IDENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def mask_paths(rule: Rule, body: bytes) -> list[str]:
    """Return the paths that a valid body sets, without those that the path of the request sets."""
    assert rule.body_field is not None
    element = field_element(rule.body_field)
    bound = {binding.key[1:] for binding in rule.variables if binding.key[0] == rule.body_field.name}
    value = json.loads(body)
    if not isinstance(element, DescMessage) or not isinstance(value, dict):
        return []
    return [".".join(path) for path in _leaves(element, value, ()) if path not in bound]


def _leaves(message: DescMessage, value: dict[str, Any], prefix: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the paths of a PATCH body, down to scalars, lists, maps and types with a special JSON form."""
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
