"""JSON as text, before its fields mean anything: one value, unique keys, no NUL, no lone surrogates, no huge numbers.

`explain` says what is wrong with a text, slowly and with the path; `is_plain` proves quickly that a text which a
parser has taken holds nothing that would need a closer look.
"""

import json
import re
from typing import Any

import orjson

from edge_gateway.errors import EdgeError, invalid_argument, invalid_field

#: Levels of objects and lists, together: what protobuf's own parsers accept.
MAX_DEPTH = 99
#: For `check_depth`: what each bracket adds to the depth, and every other byte.
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
#: Far more than a double or a 64-bit integer can use.
_MAX_DIGITS = 400

#: A key that is spelled as protos spell it. It begins at its quote: begun at each `_`, the search would be quadratic.
_SNAKE_KEY = re.compile(rb'"[^"_]*_[^"]*"\s*:')
#: What the codec reads as integers though JSON does not write numbers so.
_PLUS, _LEADING_ZERO = re.compile(rb'"\+[0-9]'), re.compile(rb'"-?0[0-9]+[."eE]')
_BARE_POINT, _GROUPED = re.compile(rb'[0-9]\."'), re.compile(rb"[0-9]_[0-9]")
_ODD_DIGIT = re.compile(r"(?![0-9])\d")


class JsonViolation(Exception):
    """Carries a description up to the root while the path is put in front of it."""

    def __init__(self, description: str, *path: str) -> None:
        super().__init__(description)
        self.description = description
        self.path = list(path)

    def as_error(self) -> EdgeError:
        path = ""
        for part in self.path:
            path += part if part.startswith("[") or not path else f".{part}"
        return invalid_field(path, self.description)


def is_plain(text: bytes) -> bool:
    """Tells of a valid text that it has no escapes, no key twice, no snake_case key and no odd number.

    Without escapes every quote stands at the end of a string, and a key that occurs twice is written once by a parser
    that keeps the last: so equal numbers of quotes mean unique keys.
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
    """Tells quickly that a text is one value; of a few valid ones it says that they are not."""
    try:
        orjson.loads(text)
    except ValueError:
        return False
    return True


def parse_unique(text: bytes) -> Any:
    """Parses a text, or raises EdgeError 400 that says what is wrong and where."""
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


class _Bad:
    """Stands in a parsed text for a part that is not to be taken."""

    def __init__(self, description: str, *path: str) -> None:
        self.refused = JsonViolation(description, *path)


def _pairs_or_bad(pairs: list[tuple[str, Any]]) -> Any:
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    for key, _ in pairs:
        if key not in value:
            return _Bad("occurs more than once", key)
        del value[key]
    return value


def _integer_or_bad(digits: str) -> Any:
    return int(digits) if len(digits) <= _MAX_DIGITS else _Bad(f"has more than {_MAX_DIGITS} digits")


_NUL = b"\\u0000"
_UNIQUE = json.JSONDecoder(object_pairs_hook=_unique)
_EXPLAINING = json.JSONDecoder(
    object_pairs_hook=_pairs_or_bad,
    parse_int=_integer_or_bad,
    parse_constant=lambda name: _Bad(f"must not be {name}, which is not JSON"),
)


def explain(text: bytes, *path: str) -> EdgeError | None:
    """Says why a text is no JSON that this edge takes, whatever its message type; None when it is."""
    try:
        value = _EXPLAINING.decode(text.decode())
        _visit(value)
    except UnicodeDecodeError:
        return invalid_argument("the body is not UTF-8")
    except json.JSONDecodeError as error:
        return invalid_argument(f"the body is not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}")
    except RecursionError:
        return too_deep()
    except JsonViolation as refused:
        refused.path[:0] = path
        return refused.as_error()
    return None


def _visit(value: Any) -> None:
    """Refuses the first bad part inside a parsed text, with the path to it."""
    items: Any = ()
    if isinstance(value, _Bad):
        raise value.refused
    if isinstance(value, str):
        _refuse_text(value)
    elif isinstance(value, dict):
        for key in value:
            _refuse_text(key)
        items = value.items()
    elif isinstance(value, list):
        items = ((f"[{index}]", item) for index, item in enumerate(value))
    for key, item in items:
        try:
            _visit(item)
        except JsonViolation as refused:
            refused.path.insert(0, key)
            raise


def _refuse_text(text: str) -> None:
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
    return invalid_argument("the body is not valid JSON")


def too_deep() -> EdgeError:
    return invalid_argument(f"the body is nested deeper than {MAX_DEPTH} levels")
