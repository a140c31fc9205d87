"""Page tokens: the position after the last entry of a page, made opaque (AIP-158)."""

import base64
import binascii

from shop.chassis.v1.chassis_errors import PageTokenInvalid

_DEFAULT_SIZE = 20


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
    except (binascii.Error, UnicodeDecodeError):
        raise PageTokenInvalid from None
    if len(position) != parts:
        raise PageTokenInvalid
    return position


def int_position(token: str, first: int) -> int:
    """Return a position that is one integer, `first` for the first page; raises PageTokenInvalid."""
    position = page_position(token, 1)
    if position is None:
        return first
    try:
        return int(position[0])
    except ValueError:
        raise PageTokenInvalid from None
