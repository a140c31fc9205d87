"""Page tokens: the position after the last entry of a page, made opaque (AIP-158)."""

import base64
from datetime import UTC, datetime

from shop.chassis.v1.chassis_errors import PageTokenInvalid

_DEFAULT_SIZE = 20
#: The database's bigint: a larger number is not one that a list gave out.
_MOST = 2**63 - 1


def page_size(asked: int) -> int:
    """Return how many entries a page has; the contract's rules cap what a caller may ask for."""
    return asked or _DEFAULT_SIZE


def page_token(*position: object) -> str:
    """Return a token for the page that begins after `position`."""
    return base64.urlsafe_b64encode("\x1f".join(map(str, position)).encode()).decode()


def page_position(token: str, parts: int) -> list[str] | None:
    """Return the position that a token of `parts` values holds, None for the first page; raises PageTokenInvalid."""
    if not token:
        return None
    try:
        position = base64.b64decode(token, altchars=b"-_", validate=True).decode().split("\x1f")
    except ValueError:
        raise PageTokenInvalid from None
    if len(position) != parts or any("\0" in part for part in position):  # the database knows no NUL
        raise PageTokenInvalid
    return position


def parse_uint(part: str, most: int = _MOST) -> int:
    """Return a part of a position that is a natural number, up to what its column holds; raises PageTokenInvalid."""
    try:
        number = int(part)
    except ValueError:
        raise PageTokenInvalid from None
    if not 0 <= number <= most:
        raise PageTokenInvalid
    return number


def parse_time(part: str) -> datetime:
    """Return a part of a position that is a time; raises PageTokenInvalid."""
    try:
        time = datetime.fromisoformat(part)
        if time.tzinfo is None:
            raise PageTokenInvalid
        return time.astimezone(UTC)
    except (ValueError, OverflowError):  # some hours beyond the first or the last day that there is
        raise PageTokenInvalid from None


def int_position(token: str, first: int) -> int:
    """Return a position that is one natural number, `first` for the first page; raises PageTokenInvalid."""
    position = page_position(token, 1)
    return first if position is None else parse_uint(position[0])


def time_position(token: str, first: tuple[datetime, str]) -> tuple[datetime, str]:
    """Return the (time, id) after which a page begins; raises PageTokenInvalid."""
    position = page_position(token, 2)
    return first if position is None else (parse_time(position[0]), position[1])
