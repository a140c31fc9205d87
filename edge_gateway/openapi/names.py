"""The types that a document has components for, and their names."""

from collections.abc import Iterable
from typing import Any

from protobuf import DescEnum, DescMessage

from edge_gateway.routing.field_types import field_element

#: Names of components that are not messages.
RESERVED = {"Status", "StatusDetail", "Problem", "BatchGetRequest", "BatchGetResponse"}


def reachable(messages: Iterable[DescMessage]) -> set[str]:
    """Return the full names of some messages and, transitively, of all messages and enums in their fields."""
    found: set[str] = set()
    waiting: list[Any] = list(messages)
    while waiting:
        desc = waiting.pop()
        if desc.type_name in found:
            continue
        found.add(desc.type_name)
        elements = [field_element(it) for it in getattr(desc, "fields", ())]
        waiting += [it for it in elements if isinstance(it, DescMessage | DescEnum)]
    return found


def short_names(full: set[str]) -> dict[str, str]:
    """Return names without their packages, where they stay unique."""
    names: dict[str, list[str]] = {}
    for name in sorted(full):
        names.setdefault(_short_name(name), []).append(name)
    return {
        name: short if len(alike) == 1 and short not in RESERVED else name
        for short, alike in names.items()
        for name in alike
    }


def _short_name(full: str) -> str:
    """Return the name within its package; packages are in lower case, types are not."""
    parts = full.split(".")
    first = next((at for at, part in enumerate(parts) if part[:1].isupper()), len(parts) - 1)
    return ".".join(parts[first:])
