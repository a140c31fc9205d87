"""Counts calls by key. A limit of `requests` in `per` holds for every window of that length, wherever it begins."""

import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Protocol

_MAX_KEYS = 100_000


@dataclass(frozen=True, slots=True)
class RateLimitResult:
    """What a counter says: whether the call is let through, how many are left, and seconds until more are."""

    allowed: bool
    remaining: int
    reset: float


class CounterUnavailableError(ConnectionError):
    """The counter cannot be asked now."""


class Counter(Protocol):
    """Counts calls by key."""

    async def acquire(self, key: str, requests: int, per: float) -> RateLimitResult:
        """Counts one call, or raises CounterUnavailableError."""
        ...


class LocalCounter:
    """Counts for this process alone."""

    def __init__(self) -> None:
        self._calls: OrderedDict[str, deque[float]] = OrderedDict()

    async def acquire(self, key: str, requests: int, per: float) -> RateLimitResult:
        now = time.monotonic()
        calls = self._calls.setdefault(key, deque())
        self._calls.move_to_end(key)
        if len(self._calls) > _MAX_KEYS:
            self._calls.popitem(last=False)
        while calls and calls[0] <= now - per:
            calls.popleft()
        allowed = len(calls) < requests
        if allowed:
            calls.append(now)
        return RateLimitResult(allowed, requests - len(calls), calls[0] + per - now if calls else 0.0)
