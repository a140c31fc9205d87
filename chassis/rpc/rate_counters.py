"""Counts calls by key. A limit of `requests` in `per` holds for every window of that length, wherever it begins."""

import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Protocol

_MAX_KEYS = 100_000


@dataclass(frozen=True, slots=True)
class RateLimitResult:
    """Whether the call is allowed, how many more are, and the seconds until the window frees one."""

    allowed: bool
    remaining: int
    reset: float


class CounterUnavailableError(ConnectionError):
    """The counter is unavailable."""


class Counter(Protocol):
    """Counts calls by key."""

    async def acquire(self, key: str, requests: int, per: float) -> RateLimitResult:
        """Count one call, or raise CounterUnavailableError."""
        ...

    async def close(self) -> None:
        """Close the connections, if it has any."""
        ...


class LocalCounter:
    """Counts calls of this process alone."""

    def __init__(self) -> None:
        self._calls: OrderedDict[str, deque[float]] = OrderedDict()

    async def acquire(self, key: str, requests: int, per: float) -> RateLimitResult:
        """Count one call, of at most `requests` in `per` seconds."""
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

    async def close(self) -> None:
        """Forget all calls."""
        self._calls.clear()
