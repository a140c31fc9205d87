"""Forgotten passwords: codes, their validity and their tries. Pure: no I/O, no clock, no proto."""

import hmac
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from chassis.domain.backoff import backoff
from shop.user.v1.user_errors import PasswordResetInvalid

#: How long a code is valid.
VALIDITY = timedelta(minutes=15)
#: Tries of one code.
TRIES = 5
#: The characters of a code, without those that are easily confused; eight of them are 40 random bits.
ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"
LENGTH = 8
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(minutes=1), timedelta(minutes=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordReset:
    """What is stored of the last request for a new password; without a code for an email address without an account."""

    requests: int
    request_time: datetime
    user_id: str | None = None
    code_digest: bytes | None = None
    expire_time: datetime | None = None
    #: The tries of the code, this one included.
    tries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetCode:
    """A code for a new password as it is stored."""

    user_id: str
    digest: bytes
    expire_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetMessage:
    """One claimed attempt to send the message of a request."""

    id: str
    #: The number of this attempt, counted from 1; each claim has another one, so it is the fencing token too.
    attempt: int
    traceparent: str
    email: str = field(repr=False)
    #: None when no account has the email address: there is nothing to send.
    code: str | None = field(repr=False)
    expire_time: datetime


def accepts_request(before: PasswordReset | None, now: datetime) -> bool:
    """Return whether a request leads to a message: the pause after one doubles from a minute to 15."""
    if before is None:
        return True
    return now >= before.request_time + backoff(before.requests, _FIRST_PAUSE, _LONGEST_PAUSE)


def redeem(reset: PasswordReset | None, code_digest: bytes, now: datetime) -> str:
    """Return the user whose code this is; raises PasswordResetInvalid, whatever the reason."""
    if reset is None or reset.user_id is None or reset.code_digest is None or reset.expire_time is None:
        raise PasswordResetInvalid
    matches = hmac.compare_digest(reset.code_digest, code_digest)
    if not matches or reset.tries > TRIES or now >= reset.expire_time:
        raise PasswordResetInvalid
    return reset.user_id


def normalize_code(text: str) -> str:
    """Return a code without the separators, and in the case, that people type."""
    return text.upper().replace("-", "").replace(" ", "")


def pause(attempt: int) -> timedelta:
    """Return the pause after an attempt without an answer of the message sender."""
    return backoff(attempt, timedelta(seconds=1), timedelta(minutes=1))
