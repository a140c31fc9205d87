"""The comments of the protos: of every service, method, message, field and enum value."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from protobuf import Registry

#: Not for readers: lint directives, and what AIP-192 keeps out of public documents.
_INTERNAL = re.compile(r"^(?:buf:lint:|protolint:|api-linter:|@exclude)[^\n]*$|\(--.*?--\)", re.MULTILINE | re.DOTALL)
_REFERENCE = re.compile(r"\[([^\]]+)\]\[[^\]]*\]")
_SENTENCE = re.compile(r"(.+?[.!?])(?=\s|$)", re.DOTALL)
_CLAUSE = re.compile(r"(.{20,}?)[,;:] ")
#: Summaries appear in a list of operations; longer ones are cut at the end of their first clause.
_LONGEST = 80

_Path = tuple[int, ...]


class Comments:
    """Finds comments by full name, such as `shop.order.v1.Order.state`."""

    def __init__(self, registry: Registry) -> None:
        self._texts: dict[str, str] = {}
        files = {file.name: file.proto for file in _files(registry)}
        for _, proto in sorted(files.items()):
            if proto.source_code_info is not None:
                self._read(proto)

    def of(self, name: str) -> str:
        """Return a comment with one line for each paragraph; empty if there is none."""
        return self._texts.get(name, "")

    def _read(self, file: Any) -> None:
        found = {tuple(place.path): place for place in file.source_code_info.location}
        for name, path in _places(file):
            place = found.get(path)
            text = _clean(place.leading_comments or place.trailing_comments) if place is not None else ""
            if text:
                self._texts[name] = text


def summary_of(text: str) -> tuple[str, str]:
    """Split a comment into its first sentence, without the full stop, and the rest; repeat all of it if it is cut."""
    first, _, after = text.partition("\n\n")
    found = _SENTENCE.match(first)
    head = found[1] if found else first
    clause = _CLAUSE.match(head) if len(head) > _LONGEST else None
    if clause is not None:
        return clause[1], text
    return head.removesuffix("."), "\n\n".join(filter(None, [first[len(head) :].strip(), after]))


def _files(registry: Registry) -> Iterator[Any]:
    for desc in registry:
        yield getattr(desc, "file", None) or desc


def _clean(text: str) -> str:
    text = _INTERNAL.sub("", "\n".join(line.strip() for line in text.splitlines()))
    paragraphs = re.split(r"\n\s*\n", _REFERENCE.sub(r"`\1`", text))
    return "\n\n".join(joined for paragraph in paragraphs if (joined := _join(paragraph)))


def _join(paragraph: str) -> str:
    """Join lines, unless they are a list or a table."""
    lines = paragraph.strip().splitlines()
    if any(re.match(r"[-*|#] ?|\d+[.)] ", line) for line in lines):
        return "\n".join(lines)
    return " ".join(lines)


def _places(file: Any) -> Iterator[tuple[str, _Path]]:
    """Yield full names with their paths in SourceCodeInfo, which consist of descriptor.proto's field numbers."""
    scope = file.package
    for i, service in enumerate(file.service):
        name = _under(scope, service.name)
        yield name, (6, i)
        yield from ((f"{name}.{method.name}", (6, i, 2, j)) for j, method in enumerate(service.method))
    yield from _in_messages(file.message_type, scope, (4,))
    yield from _in_enums(file.enum_type, scope, (5,))


def _in_messages(messages: Iterable[Any], scope: str, path: _Path) -> Iterator[tuple[str, _Path]]:
    for i, message in enumerate(messages):
        name, at = _under(scope, message.name), (*path, i)
        yield name, at
        yield from ((f"{name}.{field.name}", (*at, 2, j)) for j, field in enumerate(message.field))
        yield from _in_messages(message.nested_type, name, (*at, 3))
        yield from _in_enums(message.enum_type, name, (*at, 4))


def _in_enums(enums: Iterable[Any], scope: str, path: _Path) -> Iterator[tuple[str, _Path]]:
    for i, enum in enumerate(enums):
        name, at = _under(scope, enum.name), (*path, i)
        yield name, at
        yield from ((f"{name}.{value.name}", (*at, 2, j)) for j, value in enumerate(enum.value))


def _under(scope: str, name: str) -> str:
    return f"{scope}.{name}" if scope else name
