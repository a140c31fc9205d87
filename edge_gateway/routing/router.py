"""Matches a method and a path to a route, by a trie in which literals precede `*`, and `*` precedes `**`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from urllib.parse import unquote_to_bytes

from edge_gateway.errors import EdgeError, invalid_argument, method_not_allowed, not_found
from edge_gateway.routing.template import REST, STAR, Template

T = TypeVar("T")

_ANY_METHOD = "*"
_DOT_SEGMENTS = {".", ".."}


class DuplicateRouteError(ValueError):
    """Two rules match the same method and the same paths."""


@dataclass(slots=True)
class _Node(Generic[T]):
    literals: dict[str, "_Node[T]"] = field(default_factory=dict)
    star: "_Node[T] | None" = None
    rest: "_Node[T] | None" = None
    #: verb (None where there is none) -> HTTP method -> (template, target)
    ends: dict[str | None, dict[str, tuple[Template, T]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Match(Generic[T]):
    """A route, and the decoded text that each variable of its template captured."""

    target: T
    captured: tuple[str, ...]


class Router(Generic[T]):
    """Routes by templates. Path segments are compared undecoded, so each literal has one spelling."""

    def __init__(self, *, prefix: str = "") -> None:
        self._root: _Node[T] = _Node()
        self._plain: dict[tuple[str, str], Match[T]] = {}
        self._prefix = prefix.rstrip("/")

    def add(self, method: str, template: Template, target: T) -> None:
        """Add a route, or raise DuplicateRouteError."""
        node = self._root
        for segment in template.segments:
            node = _child(node, segment)
        methods = node.ends.setdefault(template.verb, {})
        if method in methods:
            raise DuplicateRouteError(f"{method} {template.text} matches the same paths as {methods[method][0].text}")
        methods[method] = (template, target)
        if STAR not in template.segments and REST not in template.segments and not template.variables:
            self._plain[method, template.text] = Match(target, ())

    def match(self, method: str, path: str) -> Match[T]:
        """Return the match, or raise EdgeError: 404, 405 with Allow, or 400 for a malformed path."""
        plain = self._plain.get((method, path))
        if plain is not None:
            return plain
        found = self._search(method, path)
        if found is None and self._prefix and path.startswith(self._prefix + "/"):
            found = self._search(method, path[len(self._prefix) :])
        if found is None:
            raise not_found(path)
        return found

    def methods(self, path: str) -> list[str]:
        """Return the HTTP methods of the rules at a path; raise EdgeError 404 if there are none."""
        try:
            self.match("", path)
        except EdgeError as error:
            if not error.allowed:
                raise
            return list(error.allowed)
        return ["GET", "POST", "PUT", "PATCH", "DELETE"]  # a rule for any method

    def _search(self, method: str, path: str) -> Match[T] | None:
        if path == "/":
            return self._match([], None, method)
        segments = path[1:].split("/")
        if not path.startswith("/") or "" in segments or not _DOT_SEGMENTS.isdisjoint(segments):
            return None
        head, colon, verb = segments[-1].rpartition(":")
        if colon and head and verb:
            found = self._match([*segments[:-1], head], verb, method)
            if found is not None:  # a known verb is never part of the last segment
                return found
        return self._match(segments, None, method)

    def _match(self, segments: list[str], verb: str | None, method: str) -> Match[T] | None:
        end = _first(self._root, segments, 0, verb, method)
        if end is not None:
            return Match(end[1], _capture(end[0], segments))
        known = {name for node in _walk(self._root, segments, 0) for name in node.ends.get(verb, ())}
        if known:
            raise method_not_allowed(known)
        return None


def _child(node: _Node[T], segment: str) -> _Node[T]:
    if segment == STAR:
        node.star = node.star or _Node()
        return node.star
    if segment == REST:
        node.rest = node.rest or _Node()
        return node.rest
    return node.literals.setdefault(segment, _Node())


def _walk(node: _Node[T], segments: list[str], at: int) -> Iterator[_Node[T]]:
    """Yield the nodes that match all segments, the most literal first."""
    if at == len(segments):
        if node.ends:
            yield node
    else:
        literal = node.literals.get(segments[at])
        if literal is not None:
            yield from _walk(literal, segments, at + 1)
        if node.star is not None:
            yield from _walk(node.star, segments, at + 1)
    if node.rest is not None:
        for stop in _stops(node.rest, segments, at):
            yield from _walk(node.rest, segments, stop)


def _stops(rest: _Node[T], segments: list[str], at: int) -> Sequence[int]:
    """Return where a `**` may end: early ends first, which leave the most literals behind it.

    A template holds at most one `**`, so these never nest.
    """
    return range(at, len(segments) + 1) if rest.literals else (len(segments),)


def _first(node: _Node[T], segments: list[str], at: int, verb: str | None, method: str) -> tuple[Template, T] | None:
    """Return the most literal route for a verb and a method, as `_walk` would, but without the cost of a generator."""
    if at == len(segments):
        methods = node.ends.get(verb)
        if methods is not None:
            end = methods.get(method) or methods.get(_ANY_METHOD) or (methods.get("GET") if method == "HEAD" else None)
            if end is not None:
                return end
    else:
        for child in (node.literals.get(segments[at]), node.star):
            if child is not None and (end := _first(child, segments, at + 1, verb, method)) is not None:
                return end
    if node.rest is not None:
        for stop in _stops(node.rest, segments, at):
            if (end := _first(node.rest, segments, stop, verb, method)) is not None:
                return end
    return None


def _capture(template: Template, segments: list[str]) -> tuple[str, ...]:
    if not template.variables:
        return ()
    values = []
    for variable in template.variables:
        run = segments[variable.start : variable.stop]
        values.append("/".join(map(_decode_multiple, run)) if variable.multiple else decode_percent(run[0]))
    return tuple(values)


def decode_percent(text: str) -> str:
    """Decode percent-encoded UTF-8, or raise EdgeError 400."""
    if "%" not in text:
        return text
    for part in text.split("%")[1:]:
        if len(part) < 2 or not _is_hex(part[:2]):
            raise invalid_argument("the URL holds a malformed percent-encoding")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise invalid_argument("the URL does not decode to UTF-8") from None


def _is_hex(pair: str) -> bool:
    return all(character in "0123456789abcdefABCDEF" for character in pair)


def _decode_multiple(segment: str) -> str:
    """Decode one of several segments; keep `%2F`, which is not a separator."""
    if "%" not in segment:
        return segment
    return "%2F".join(decode_percent(part) for part in segment.replace("%2f", "%2F").split("%2F"))
