"""The throttle of logins. Pure: no I/O, no clock, no proto.

Attempts are counted by email address and client, so that a stranger does not lock the owner out, and more loosely by
email address alone, against a stranger with many addresses. The latter does not count a client that logged in before.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from chassis.domain.backoff import backoff
from shop.user.v1.user_errors import LoginThrottled

#: Attempts of one client before its first pause; as many of its logins may be in progress at the same time.
FREE_ATTEMPTS = 10
#: Attempts of all unknown clients together before the first pause.
FREE_ATTEMPTS_BY_EMAIL = 100
LONGEST_PAUSE = timedelta(minutes=15)
_FIRST_PAUSE = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginThrottle:
    """The login attempts with one key since the last success, whether an account has the email address or not."""

    failures: int = 0
    retry_time: datetime

    def attempted(self, now: datetime, free: int = FREE_ATTEMPTS) -> "LoginThrottle":
        """Count an attempt, before its password is verified, so that concurrent guesses count one by one.

        Raises LoginThrottled during a pause.
        """
        if now < self.retry_time:
            raise LoginThrottled().retry_after((self.retry_time - now).total_seconds())
        failures = self.failures + 1
        if failures < free:
            return LoginThrottle(failures=failures, retry_time=now)
        pause = backoff(failures - free + 1, _FIRST_PAUSE, LONGEST_PAUSE)
        return LoginThrottle(failures=failures, retry_time=now + pause)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginClient:
    """Who attempts to log in with an email address: keys of its throttles, and of the memory of earlier logins."""

    by_email: bytes
    by_address: bytes
    #: None without a device token.
    by_device: bytes | None

    @classmethod
    def of(cls, email: str, address: str, device_token: str) -> "LoginClient":
        """Return the client of an attempt."""
        return cls(
            by_email=_key(email),
            by_address=_key(email, "address", address),
            by_device=_key(email, "device", device_token) if device_token else None,
        )

    @property
    def keys(self) -> list[bytes]:
        """What a login remembers the client by."""
        return [self.by_address] if self.by_device is None else [self.by_device, self.by_address]

    def limits(self, known: set[bytes]) -> Mapping[bytes, int]:
        """Return the keys of the throttles that count the attempt, each with its free attempts.

        A known device is counted by itself: not with strangers behind the same address.
        """
        client = self.by_device if self.by_device in known else self.by_address
        assert client is not None, "None is not known"
        limits = {client: FREE_ATTEMPTS}
        return limits if client in known else limits | {self.by_email: FREE_ATTEMPTS_BY_EMAIL}


def _key(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode()).digest()
