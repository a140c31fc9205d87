"""The path templates of google.api.http: their grammar, checked strictly, and their compiled form.

    Template = "/" Segments [ Verb ] ;      Segments = Segment { "/" Segment } ;
    Segment  = "*" | "**" | LITERAL | Variable ;
    Variable = "{" FieldPath [ "=" Segments ] "}" ;    Verb = ":" LITERAL ;

An extension that Envoy and grpc-gateway share: literals may follow `**`, which occurs at most once. A wildcard may not:
which segments it would match is ambiguous.
"""

import re
from dataclasses import dataclass

STAR = "*"
REST = "**"

_IDENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LITERAL = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()+,;@]|%[0-9A-Fa-f]{2})+")


class TemplateError(ValueError):
    """An invalid template; the message gives the position and the reason."""


@dataclass(frozen=True, slots=True)
class Variable:
    """The field that a run of segments sets.

    The run is the slice from `start` to `stop` of a path's segments. Positions behind a `**` count from the end,
    since a `**` makes the length of the path vary.
    """

    field_path: tuple[str, ...]
    start: int
    stop: int | None
    multiple: bool


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template; two templates with equal `segments` and `verb` match the same paths."""

    text: str
    segments: tuple[str, ...]
    verb: str | None
    variables: tuple[Variable, ...]


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.segments: list[str] = []
        self.variables: list[tuple[tuple[str, ...], int, int]] = []

    def parse(self) -> Template:
        self._expect("/")
        self._segments(inside_variable=False)
        verb = self._literal() if self._accept(":") else None
        if self.at != len(self.text):
            raise self._error("unexpected text")
        if self.segments.count(REST) > 1:
            raise self._error("`**` occurs more than once")
        if REST in self.segments and STAR in self.segments[self.segments.index(REST) :]:
            raise self._error("a wildcard after `**`")
        names = [path for path, _, _ in self.variables]
        if len(set(names)) != len(names):
            raise self._error("a variable occurs more than once")
        return Template(self.text, tuple(self.segments), verb, tuple(map(self._variable, self.variables)))

    def _variable(self, found: tuple[tuple[str, ...], int, int]) -> Variable:
        path, start, stop = found
        covered = self.segments[start:stop]
        multiple = len(covered) > 1 or REST in covered
        rest = self.segments.index(REST) if REST in self.segments else len(self.segments)
        from_end = stop - len(self.segments)
        return Variable(
            path,
            start if start <= rest else start - len(self.segments),
            stop if stop <= rest else from_end or None,
            multiple,
        )

    def _segments(self, *, inside_variable: bool) -> None:
        self._segment(inside_variable=inside_variable)
        while self._accept("/"):
            self._segment(inside_variable=inside_variable)

    def _segment(self, *, inside_variable: bool) -> None:
        if self._accept("**"):
            self.segments.append(REST)
        elif self._accept("*"):
            self.segments.append(STAR)
        elif self._accept("{"):
            if inside_variable:
                raise self._error("a variable inside a variable")
            self._field()
        else:
            self.segments.append(self._literal())

    def _field(self) -> None:
        path = [self._ident()]
        while self._accept("."):
            path.append(self._ident())
        start = len(self.segments)
        if self._accept("="):
            self._segments(inside_variable=True)
        else:
            self.segments.append(STAR)
        self._expect("}")
        self.variables.append((tuple(path), start, len(self.segments)))

    def _ident(self) -> str:
        return self._match(_IDENT, "a field name")

    def _literal(self) -> str:
        return self._match(_LITERAL, "a literal")

    def _match(self, pattern: re.Pattern[str], what: str) -> str:
        found = pattern.match(self.text, self.at)
        if found is None:
            raise self._error(f"expected {what}")
        self.at = found.end()
        return found.group()

    def _accept(self, token: str) -> bool:
        if not self.text.startswith(token, self.at):
            return False
        self.at += len(token)
        return True

    def _expect(self, token: str) -> None:
        if not self._accept(token):
            raise self._error(f"expected `{token}`")

    def _error(self, reason: str) -> TemplateError:
        return TemplateError(f"path template {self.text!r}: {reason} at character {self.at + 1}")


def parse_template(text: str) -> Template:
    """Parse a template, or raise TemplateError."""
    return _Parser(text).parse()
