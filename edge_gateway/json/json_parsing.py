"""Parses JSON text strictly: one value, unique keys, no NUL, no lone surrogates, no huge numbers.

`explain` finds the error in a text, slowly and with its path; `is_plain` proves quickly that a text which a
parser has accepted contains nothing that needs a further check.
"""

import json
import re
from typing import Any

import orjson

from edge_gateway.errors import EdgeError, invalid_argument, invalid_field

#: Levels of objects and lists, together: what protobuf's own parsers accept.
MAX_DEPTH = 99
#: For `check_depth`: the change of depth by each bracket, and the bytes to delete.
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
#: More digits than any double or 64-bit integer needs.
_MAX_DIGITS = 400

#: A key in snake_case. The match begins at the quote: beginning at each `_`, the search would be quadratic.
_SNAKE_KEY = re.compile(rb'"[^"_]*_[^"]*"\s*:')
#: Texts that the codec accepts as integers although they are not JSON numbers.
_PLUS, _LEADING_ZERO = re.compile(rb'"\+[0-9]'), re.compile(rb'"-?0[0-9]+[."eE]')
_BARE_POINT, _GROUPED = re.compile(rb'[0-9]\."'), re.compile(rb"[0-9]_[0-9]")
_ODD_DIGIT = re.compile(r"(?![0-9])\d")


class JsonViolation(Exception):
    """An error in a JSON value; each caller prepends its part of the path."""

    def __init__(self, description: str, *path: str) -> None:
        super().__init__(description)
        self.description = description
        self.path = list(path)

    def as_error(self) -> EdgeError:
        """Return the error as a 400 that names the field."""
        path = ""
        for part in self.path:
            path += part if part.startswith("[") or not path else f".{part}"
        return invalid_field(path, self.description)


def is_plain(text: bytes) -> bool:
    """Return whether a valid text has no escapes, no duplicate or snake_case key and no number in an odd form.

    Without escapes every quote delimits a string, and a parser that keeps the last of duplicate keys writes the key
    once: so equal numbers of quotes mean unique keys.
    """
    if (
        b"\\" in text
        or (b"_" in text and _SNAKE_KEY.search(text))
        or (b"_" in text and _GROUPED.search(text))
        or (b'"+' in text and _PLUS.search(text))
        or ((b'"0' in text or b'"-0' in text) and _LEADING_ZERO.search(text))
        or (b'."' in text and _BARE_POINT.search(text))
        or (not text.isascii() and _ODD_DIGIT.search(text.decode()))
    ):
        return False
    try:
        return orjson.dumps(orjson.loads(text)).count(b'"') == text.count(b'"')
    except ValueError:
        return False


def is_json(text: bytes) -> bool:
    """Return quickly whether a text is one JSON value; false for a few valid ones."""
    try:
        orjson.loads(text)
    except ValueError:
        return False
    return True


def parse_unique(text: bytes) -> Any:
    """Parse a text, or raise EdgeError 400 with the error and its position."""
    try:
        value = _UNIQUE.decode(text.decode())
    except (ValueError, RecursionError):
        raise explain(text) or not_json() from None
    if _NUL in text and (error := explain(text)) is not None:
        raise error
    return value


class _DuplicateKeyError(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _DuplicateKeyError
    return value


class _Invalid:
    """Replaces an invalid part in a parsed text."""

    def __init__(self, description: str, *path: str) -> None:
        self.violation = JsonViolation(description, *path)


def _pairs_or_invalid(pairs: list[tuple[str, Any]]) -> Any:
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    for key, _ in pairs:
        if key not in value:
            return _Invalid("occurs more than once", key)
        del value[key]
    return value


def _integer_or_invalid(digits: str) -> Any:
    return int(digits) if len(digits) <= _MAX_DIGITS else _Invalid(f"has more than {_MAX_DIGITS} digits")


_NUL = b"\\u0000"
_UNIQUE = json.JSONDecoder(object_pairs_hook=_unique)
_EXPLAINING = json.JSONDecoder(
    object_pairs_hook=_pairs_or_invalid,
    parse_int=_integer_or_invalid,
    parse_constant=lambda name: _Invalid(f"must not be {name}, which is not JSON"),
)


def explain(text: bytes, *path: str) -> EdgeError | None:
    """Return the error of a text that is no valid JSON for any message type, or None."""
    try:
        value = _EXPLAINING.decode(text.decode())
        _visit(value)
    except UnicodeDecodeError:
        return invalid_argument("the body is not UTF-8")
    except json.JSONDecodeError as error:
        return invalid_argument(f"the body is not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}")
    except RecursionError:
        return too_deep()
    except JsonViolation as violation:
        violation.path[:0] = path
        return violation.as_error()
    return None


def _visit(value: Any) -> None:
    """Raise JsonViolation for the first invalid part of a parsed text."""
    items: Any = ()
    if isinstance(value, _Invalid):
        raise value.violation
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, dict):
        for key in value:
            _check_text(key)
        items = value.items()
    elif isinstance(value, list):
        items = ((f"[{index}]", item) for index, item in enumerate(value))
    for key, item in items:
        try:
            _visit(item)
        except JsonViolation as violation:
            violation.path.insert(0, key)
            raise


def _check_text(text: str) -> None:
    if "\0" in text:
        raise JsonViolation("must not hold the character NUL")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise JsonViolation("must not hold a lone surrogate")


def check_depth(text: bytes) -> None:
    """Raise EdgeError 400 for JSON that is nested too deeply for a recursive parser.

    It must run before every parser: protobuf-py's overflows the stack, which ends the process. Invalid JSON needs no
    care: a parser stops at its first error, and up to there this scan reads the same strings and brackets.
    """
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return
    # Without escaped backslashes and then escaped quotes, every other piece between quotes is outside of strings.
    pieces = text.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
    depth = 0
    for step in memoryview(b"".join(pieces[::2]).translate(_STEPS, _NO_BRACKETS)).cast("b"):
        depth += step
        if depth > MAX_DEPTH:
            raise too_deep()


def not_json() -> EdgeError:
    """Return a 400 for a body that is not JSON."""
    return invalid_argument("the body is not valid JSON")


def too_deep() -> EdgeError:
    """Return a 400 for a body that is nested too deeply."""
    return invalid_argument(f"the body is nested deeper than {MAX_DEPTH} levels")
