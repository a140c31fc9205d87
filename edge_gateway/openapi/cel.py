"""The part of buf.validate's CEL rules that JSON Schema can express.

A rule is split at its `&&`. A part such as `this.name != ''` becomes demands on a field; a part of any other
form is left to the server, and to the reader of the rule's message.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

_PATH = r"this((?:\.[a-z_][a-z0-9_]*)*)"


@dataclass(frozen=True, slots=True)
class Demand:
    """A rule's constraint on one field, as JSON Schema."""

    path: tuple[str, ...]
    keywords: dict[str, Any] = field(default_factory=dict)


_Reader = Callable[[re.Match[str]], dict[str, Any]]

_BOUNDS = {">=": "minimum", ">": "exclusiveMinimum", "<=": "maximum", "<": "exclusiveMaximum", "==": "const"}

_FORMS: tuple[tuple[re.Pattern[str], _Reader], ...] = (
    (re.compile(rf"has\({_PATH}\)"), lambda _: {}),
    (re.compile(rf"{_PATH} != ''"), lambda _: {"minLength": 1}),
    (re.compile(rf"{_PATH}\.size\(\) (>=?) (\d+)"), lambda found: {"minItems": int(found[3]) + (found[2] == ">")}),
    (re.compile(rf"{_PATH}\.matches\('((?:[^'\\]|\\.)*)'\)"), lambda found: {"pattern": _unquote(found[2])}),
    (re.compile(rf"{_PATH} (>=|>|<=|<|==) (-?\d+)"), lambda found: {_BOUNDS[found[2]]: int(found[3])}),
)


def demands(expression: str) -> Iterator[Demand]:
    """Return the constraints of an expression, as far as JSON Schema has them."""
    for part in _conjuncts(expression):
        for form, read in _FORMS:
            found = form.fullmatch(part)
            if found is not None:
                yield Demand(tuple(found[1].split(".")[1:]), read(found))
                break


def _conjuncts(expression: str) -> list[str]:
    """Split an expression into the parts that must all hold; return none if `||` or `?` binds more loosely."""
    parts, depth, start, quote = [], 0, 0, ""
    for at, character in enumerate(expression):
        if quote:
            quote = "" if character == quote and expression[at - 1] != "\\" else quote
        elif character in "'\"":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif depth == 0 and (character == "?" or expression.startswith("||", at)):
            return []
        elif depth == 0 and expression.startswith("&&", at):
            parts.append(expression[start:at].strip())
            start = at + 2
    return [*parts, expression[start:].strip()]


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)
