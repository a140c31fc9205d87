"""Partial replies: `?fields=orders(orderId,lines.sku),nextPageToken` keeps only the named fields.

Paths are joined by `,`, their steps by `.` or `/`, and a step may be followed by a selection in parentheses. Lists
are transparent: a step after a list applies to its elements.
"""

from typing import Any

from protobuf import DescField, DescFieldValueMap, DescMessage

from edge_gateway.errors import EdgeError, invalid_argument
from edge_gateway.routing.field_types import field_element, is_opaque

#: The kept keys and the selection below each; an empty selection keeps the whole value.
Selection = dict[str, "Selection"]

_MAX_DEPTH = 20
_STOPS = ",.()/"


def parse_fields(text: str, message: DescMessage, *, proto_names: bool = False) -> Selection:
    """Parse a selection and check its names against a message; spell the keys as the reply does."""
    selection, at = _parse(text, 0, 0)
    if at != len(text):
        raise _malformed(text, at)
    return _Checker(proto_names=proto_names).check(selection, message, "")


def _parse(text: str, at: int, depth: int) -> tuple[Selection, int]:
    if depth > _MAX_DEPTH:
        raise _malformed(text, at)
    selection: Selection = {}
    while True:
        at = _path(text, at, selection, depth)
        if at == len(text) or text[at] != ",":
            return selection, at
        at += 1


def _path(text: str, at: int, selection: Selection, depth: int) -> int:
    steps = 0
    while True:
        stop = next((index for index in range(at, len(text)) if text[index] in _STOPS), len(text))
        name = text[at:stop].strip()
        if not name or steps + depth > _MAX_DEPTH:
            raise _malformed(text, at)
        selection = selection.setdefault(name, {})
        at, steps = stop, steps + 1
        if at < len(text) and text[at] == "(":
            inner, at = _parse(text, at + 1, depth + steps)
            if at == len(text) or text[at] != ")":
                raise _malformed(text, at)
            _merge(selection, inner)
            return at + 1
        if at == len(text) or text[at] not in "./":
            return at
        at += 1


def _merge(into: Selection, other: Selection) -> None:
    for name, inner in other.items():
        _merge(into.setdefault(name, {}), inner)


class _Checker:
    def __init__(self, *, proto_names: bool) -> None:
        self._proto_names = proto_names

    def check(self, selection: Selection, message: DescMessage, path: str) -> Selection:
        if is_opaque(message) or "*" in selection:
            return {}
        checked: Selection = {}
        for name, inner in selection.items():
            found = next((field for field in message.fields if name in (field.name, field.json_name)), None)
            if found is None:
                why = f"{path + name!r} is not in the reply"[:200]
                raise invalid_argument(f"fields: {why}", [("fields", why)])
            key = found.name if self._proto_names else found.json_name
            checked[key] = self._inner(inner, found, f"{path}{name}.")
        return checked

    def _inner(self, inner: Selection, field: DescField, path: str) -> Selection:
        element = field_element(field)
        if not inner or not isinstance(element, DescMessage):
            return {}
        if isinstance(field.value, DescFieldValueMap):
            return {key: self.check(value, element, f"{path}{key}.") for key, value in inner.items()}
        return self.check(inner, element, path)


def select(value: Any, selection: Selection) -> Any:
    """Return the selected part of a JSON value."""
    if not selection:
        return value
    if isinstance(value, list):
        return [select(item, selection) for item in value]
    if isinstance(value, dict):
        return {key: select(value[key], inner) for key, inner in selection.items() if key in value}
    return value


def _malformed(text: str, at: int) -> EdgeError:
    return invalid_argument(f"fields: malformed at character {at + 1}", [("fields", f"{text[:100]!r} is malformed")])
