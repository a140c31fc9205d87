"""The rotation of signing keys. Pure: no I/O, no clock, no proto."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A key that signs access tokens from its `use_time` until that of the next key."""

    id: str
    public_key: bytes
    private_key_ciphertext: bytes = field(repr=False)
    use_time: datetime


#: A new key is published this long before it signs, even if its time has passed while no process ran.
_LEAD_TIME = timedelta(hours=1)
#: A key is published this much longer than its tokens are valid, for clocks that differ.
_CLOCK_SKEW = timedelta(minutes=5)


def missing_use_times(keys: Sequence[SigningKey], now: datetime, rotation: timedelta) -> list[datetime]:
    """Return the use times of the keys to generate, so that one key signs now and one follows."""
    if not keys:
        return [now, now + rotation]
    latest = max(key.use_time for key in keys)
    return [max(latest + rotation, now + _LEAD_TIME)] if latest <= now else []


def active_key(keys: Iterable[SigningKey], now: datetime) -> SigningKey:
    """Return the key that signs now."""
    return max((key for key in keys if key.use_time <= now), key=lambda key: key.use_time)


def retired_keys(keys: Iterable[SigningKey], now: datetime, token_lifetime: timedelta) -> list[SigningKey]:
    """Return the keys whose tokens have all expired."""
    ordered = sorted(keys, key=lambda key: key.use_time)
    return [key for key, following in pairwise(ordered) if following.use_time + token_lifetime + _CLOCK_SKEW <= now]
