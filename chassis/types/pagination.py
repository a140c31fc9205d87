"""Keyset pagination: a page token is the sort key of a page's last row, made opaque (AIP-158)."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

from shop.chassis.v1.chassis_errors import PageTokenInvalid

Row = TypeVar("Row")

_DEFAULT_SIZE = 20
_SEPARATOR = "\x1f"
#: The database's bigint: a larger number was never in a token.
_MAX_UINT = 2**63 - 1

#: Where lists by time begin.
START_OF_TIME = datetime(1, 1, 2, tzinfo=UTC)
END_OF_TIME = datetime(9999, 12, 30, tzinfo=UTC)


class ListRequest(Protocol):
    """A request for a page (AIP-158)."""

    page_size: int
    page_token: str


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list, as it was requested."""

    #: The largest number of rows.
    size: int
    #: The sort key after which the page begins.
    after: tuple[Any, ...]

    @property
    def limit(self) -> int:
        """Return how many rows to read: one more than the page has, to see whether another page follows."""
        return self.size + 1

    def cut(self, rows: Sequence[Row], key: Callable[[Row], Sequence[object]]) -> tuple[list[Row], str]:
        """Return the page's rows and the token of the next page, empty on the last; `key` is a row's sort key."""
        shown = list(rows[: self.size])
        return shown, page_token(*key(shown[-1])) if len(rows) > self.size else ""


class Keyset:
    """The sort key of a list: how a page token's parts are parsed, and where the first page begins."""

    def __init__(self, *parsers: Callable[[str], object], start: tuple[object, ...]) -> None:
        """Parse the parts of the key in order; the first page begins after `start`."""
        self._parsers = parsers
        self._start = start

    def page(self, request: ListRequest) -> Page:
        """Return the requested page; raises PageTokenInvalid for a token that this list did not issue."""
        return Page(request.page_size or _DEFAULT_SIZE, self._position(request.page_token))

    def _position(self, token: str) -> tuple[object, ...]:
        if not token:
            return self._start
        try:
            parts = base64.b64decode(token, altchars=b"-_", validate=True).decode().split(_SEPARATOR)
        except ValueError:
            raise PageTokenInvalid from None
        if len(parts) != len(self._parsers) or any("\0" in part for part in parts):  # PostgreSQL has no NUL in text
            raise PageTokenInvalid
        return tuple(parse(part) for parse, part in zip(self._parsers, parts, strict=True))


def page_token(*key: object) -> str:
    """Return the token of the page that begins after the row with this sort key."""
    parts = [part.isoformat() if isinstance(part, datetime) else str(part) for part in key]
    return base64.urlsafe_b64encode(_SEPARATOR.join(parts).encode()).decode()


def parse_uint(part: str, maximum: int = _MAX_UINT) -> int:
    """Return a part of a sort key that is a number from 0 to `maximum`; raises PageTokenInvalid."""
    try:
        number = int(part)
    except ValueError:
        raise PageTokenInvalid from None
    if not 0 <= number <= maximum:
        raise PageTokenInvalid
    return number


def parse_time(part: str) -> datetime:
    """Return a part of a sort key that is a time; raises PageTokenInvalid."""
    try:
        time = datetime.fromisoformat(part)
        if time.tzinfo is None:
            raise PageTokenInvalid
        return time.astimezone(UTC)
    except (ValueError, OverflowError):  # less than a day from the first or the last that datetime has
        raise PageTokenInvalid from None
