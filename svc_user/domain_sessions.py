"""Sessions and their refresh tokens. Pure: no I/O, no clock, no proto."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

from shop.user.v1.user_errors import RefreshTokenInvalid


class SessionEndReason(Enum):
    """The reasons for which a session ended."""

    SIGNED_OUT = "SIGNED_OUT"
    TOKEN_REUSED = "TOKEN_REUSED"  # noqa: S105  no secret
    ROLE_LOST = "ROLE_LOST"
    PASSWORD_CHANGED = "PASSWORD_CHANGED"  # noqa: S105  no secret


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLimits:
    """The lifetimes of sessions."""

    #: The longest time without a refresh.
    idle: timedelta
    #: The longest time in total.
    longest: timedelta

    def expire_time(self, begin: datetime, now: datetime) -> datetime:
        """Return when a session that began at `begin` and is refreshed `now` expires."""
        return min(now + self.idle, begin + self.longest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A family of refresh tokens, which a login begins; at most one of them is live."""

    id: str
    user_id: str
    create_time: datetime
    expire_time: datetime
    ended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshToken:
    """One token of a session's family."""

    #: The time of its exchange for a successor; None for the live token.
    rotate_time: datetime | None = None
    #: Its successor, encrypted with a key derived from the token itself.
    successor_ciphertext: bytes | None = field(default=None, repr=False)
    #: Whether the successor was exchanged too, so that the client must have received it.
    successor_rotated: bool = False


#: A second use within this time counts as the retry of a client that did not receive the reply.
GRACE_PERIOD = timedelta(seconds=10)


class RefreshResult(Enum):
    """The results of presenting a refresh token."""

    #: Issue a successor.
    ROTATE = "ROTATE"
    #: Return the successor again.
    REPEAT = "REPEAT"
    #: Another client has or had the token too: end the session.
    REUSED = "REUSED"


def refresh(session: Session, token: RefreshToken | None, now: datetime) -> RefreshResult:
    """Decide about a refresh token; raises RefreshTokenInvalid when its session has ended or expired."""
    if session.ended or now >= session.expire_time:
        raise RefreshTokenInvalid
    if token is None:  # deleted, since its successor was exchanged too
        return RefreshResult.REUSED
    if token.rotate_time is None:
        return RefreshResult.ROTATE
    if token.successor_ciphertext is None or token.successor_rotated or now >= token.rotate_time + GRACE_PERIOD:
        return RefreshResult.REUSED
    return RefreshResult.REPEAT
