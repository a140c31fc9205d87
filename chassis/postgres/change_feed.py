"""The change feed: tells watchers in every process which aggregates any process has changed.

The outbox relay notifies the feed's channel with the key of each event that it is about to publish.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Any, Generic, TypeVar

import asyncpg

T = TypeVar("T")

CHANNEL = "changes"

#: A notification may be lost with its connection, so watchers also read without one.
_POLL_SECONDS = 10.0
#: Watchers whose polls come this close share a read.
_SHARED_POLL_SECONDS = 5.0
#: Until a broken connection is replaced.
_RECONNECT_SECONDS = 1.0


class Draining(Exception):
    """The server is shutting down: the watcher should come back with its resume token, and will reach another."""


class _Subscriber:
    """One subscription's keys that changed since it looked."""

    def __init__(self, keys: Collection[str]) -> None:
        self.changed = set(keys)
        self.event = asyncio.Event()

    def notify(self, keys: Collection[str]) -> None:
        self.changed.update(keys)
        self.event.set()


class ChangeFeed:
    """Wakes subscribers when an aggregate changes. One for each process."""

    def __init__(self) -> None:
        """Begin without a source; `listen` is one."""
        self._subscribers: defaultdict[str, set[_Subscriber]] = defaultdict(set)
        self._versions: defaultdict[str, int] = defaultdict(int)
        self._closed = False

    async def listen(self, pool: asyncpg.Pool) -> None:
        """Receive notifications until cancelled, on a connection of its own that is replaced when it breaks."""
        while True:
            try:
                async with pool.acquire() as connection:
                    broken = asyncio.Event()
                    connection.add_termination_listener(partial(_set, broken))
                    await connection.add_listener(CHANNEL, self._on_notify)
                    self._notify_all()  # of what changed between two connections no notification came
                    try:
                        await broken.wait()
                    finally:
                        if not connection.is_closed():
                            await connection.remove_listener(CHANNEL, self._on_notify)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
                await asyncio.sleep(_RECONNECT_SECONDS)

    async def subscribe(self, keys: Collection[str]) -> AsyncIterator[Collection[str]]:
        """Yield all keys at once, and then again and again those that may have changed; raises Draining at shutdown."""
        subscriber = _Subscriber(keys)
        for key in keys:
            self._subscribers[key].add(subscriber)
        try:
            while True:
                subscriber.event.clear()
                changed, subscriber.changed = subscriber.changed, set()
                yield changed or set(keys)
                if not self._closed:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_POLL_SECONDS):
                            await subscriber.event.wait()
                if self._closed:
                    raise Draining
        finally:
            for key in keys:
                self._subscribers[key].discard(subscriber)
                if not self._subscribers[key]:
                    del self._subscribers[key]
                    self._versions.pop(key, None)

    def version(self, key: str) -> int:
        """Return a number that grows with every notification of the key, for as long as it has subscribers."""
        return self._versions[key] if key in self._subscribers else 0

    def close(self) -> None:
        """End all subscriptions."""
        self._closed = True
        self._notify_all()

    def _on_notify(self, _connection: Any, _pid: int, _channel: str, key: object) -> None:
        self._notify(str(key))

    def _notify_all(self) -> None:
        for key in tuple(self._subscribers):
            self._notify(key)

    def _notify(self, key: str) -> None:
        if key in self._subscribers:
            self._versions[key] += 1
            for subscriber in self._subscribers[key]:
                subscriber.notify((key,))


class Watch(Generic[T]):
    """Follows aggregates. All watchers in a process share one read for each change, however many they are."""

    def __init__(self, feed: ChangeFeed, read: Callable[[Collection[str]], Awaitable[Mapping[str, T]]]) -> None:
        """`read` returns the aggregates with these keys, as far as they exist, by key."""
        self._feed = feed
        self._read = read
        #: The last read of each key: the feed's version that it began at, when, and what it returns.
        self._reads: dict[str, tuple[int, float, asyncio.Task[Mapping[str, T]]]] = {}

    async def values(self, keys: Collection[str]) -> AsyncIterator[Mapping[str, T]]:
        """Yield the aggregates with these keys, and then those that may have changed; raises Draining at shutdown."""
        initial = True
        try:
            async for changed in self._feed.subscribe(keys):
                yield await (self._read(changed) if initial else self._shared(changed))
                initial = False
        finally:
            for key in keys:
                if not self._feed.version(key):
                    self._reads.pop(key, None)

    async def _shared(self, keys: Collection[str]) -> Mapping[str, T]:
        """Return what a read returns that began after the last notification of each key, one's own or another's."""
        if missing := [key for key in keys if not self._is_current(key)]:
            # A context of its own: it must not inherit the deadline of the watcher that happens to be first.
            task = asyncio.create_task(_awaited(self._read(missing)), context=Context())
            for key in missing:
                self._reads[key] = (self._feed.version(key), time.monotonic(), task)
        found: dict[str, T] = {}
        for task in {self._reads[key][2] for key in keys}:
            found.update(await asyncio.shield(task))
        return {key: found[key] for key in keys if key in found}

    def _is_current(self, key: str) -> bool:
        if key not in self._reads:
            return False
        version, began, task = self._reads[key]
        failed = task.done() and (task.cancelled() or task.exception() is not None)
        return not failed and version == self._feed.version(key) and time.monotonic() - began < _SHARED_POLL_SECONDS


async def _awaited(reading: Awaitable[T]) -> T:
    return await reading


def _set(event: asyncio.Event, _connection: Any) -> None:
    event.set()
