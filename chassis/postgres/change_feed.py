"""The change feed: notifies watchers in every process of the aggregates that any process has changed.

The outbox relay notifies the feed's channel of the key of each event before it publishes the event.
"""

import asyncio
import math
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import aclosing, contextmanager, suppress
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, Generic, TypeVar

import asyncpg
from asyncpg.pool import PoolConnectionProxy

T = TypeVar("T")

CHANNEL = "changes"

#: A notification may be lost with its connection, so watchers also read without one.
_POLL_SECONDS = 10.0
#: Watchers whose polls come this close share a read.
_SHARED_POLL_SECONDS = 5.0
#: Paced watchers resume at multiples of this.
_TICK_SECONDS = 0.1
#: The longest pause of a paced watcher: it ends in time at shutdown.
_LONGEST_PAUSE_SECONDS = 10.0
#: Pause before a broken connection is replaced.
_RECONNECT_SECONDS = 1.0


class Draining(Exception):
    """The server is shutting down: the watcher resumes at another one by its resume token."""


class ChangeFeed:
    """Wakes subscribers when an aggregate changes. One for each process."""

    def __init__(self) -> None:
        """Begin without notifications; `listen` receives them."""
        #: The number of subscriptions of each key.
        self._subscriptions: Counter[str] = Counter()
        #: Those that wait for a change of a key. One that is busy finds by the key's version that it has changed, so
        #: that a notification of a hot key costs nothing for each of its many busy subscribers.
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._versions: dict[str, int] = {}
        self._notifications = count(1)
        self._closed = False

    async def attach(self, connection: PoolConnectionProxy) -> None:
        """Receive notifications on a connection that another part holds for good, as the relay of the outbox does."""
        await connection.add_listener(CHANNEL, self._on_notify)
        self._notify_all()  # changes between two connections had no notification

    async def listen(self, pool: asyncpg.Pool) -> None:
        """Receive notifications until cancelled, on a connection of its own that is replaced when it breaks.

        For a process without a relay.
        """
        while True:
            try:
                async with pool.acquire() as connection:
                    broken = asyncio.Event()
                    connection.add_termination_listener(partial(_set, broken))
                    await self.attach(connection)
                    try:
                        await broken.wait()
                    finally:
                        if not connection.is_closed():
                            await connection.remove_listener(CHANNEL, self._on_notify)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
                await asyncio.sleep(_RECONNECT_SECONDS)

    async def subscribe(self, keys: Collection[str]) -> AsyncGenerator[Collection[str], None]:
        """Yield all keys at once, and then again and again those that may have changed; raises Draining at shutdown."""
        keys = frozenset(keys)
        self._subscriptions.update(keys)
        seen: dict[str, int] = {}
        try:
            while True:
                changed = {key for key in keys if seen.get(key) != self.version(key)} or keys
                seen.update((key, self.version(key)) for key in changed)
                yield changed
                if not self._closed and all(seen[key] == self.version(key) for key in keys):
                    await self._wait(keys)
                if self._closed:
                    raise Draining
        finally:
            for key in keys:
                self._subscriptions[key] -= 1
                if not self._subscriptions[key]:
                    del self._subscriptions[key]
                    self._versions.pop(key, None)

    async def _wait(self, keys: Collection[str]) -> None:
        """Return after a change of one of the keys, or when it is time to poll."""
        event = asyncio.Event()
        for key in keys:
            self._waiting[key].add(event)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):
                    await event.wait()
        finally:
            for key in keys:
                if (waiting := self._waiting.get(key)) is not None:
                    waiting.discard(event)
                    if not waiting:
                        del self._waiting[key]

    def version(self, key: str) -> int:
        """Return a number that grows with every notification of the key, for as long as it has subscribers."""
        return self._versions.get(key, 0)

    def is_watched(self, key: str) -> bool:
        """Return whether the key has subscribers."""
        return key in self._subscriptions

    def close(self) -> None:
        """End all subscriptions."""
        self._closed = True
        self._notify_all()

    def _on_notify(self, _connection: Any, _pid: int, _channel: str, key: object) -> None:
        self._notify(str(key))

    def _notify_all(self) -> None:
        for key in tuple(self._subscriptions):
            self._notify(key)

    def _notify(self, key: str) -> None:
        if key in self._subscriptions:
            self._versions[key] = next(self._notifications)
            for event in self._waiting.pop(key, ()):
                event.set()


class WatchPace:
    """Spaces out the messages to the watchers of a process, which cost the event loop that writes need, too.

    The more watchers, the fewer messages each gets.
    """

    def __init__(self, messages_per_second: float, interval_seconds: float) -> None:
        """Let all watchers together get so many messages a second, and each one per interval at most."""
        self._messages_per_second = messages_per_second
        self._interval = interval_seconds
        self._watchers = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count a watcher for as long as the block runs."""
        self._watchers += 1
        try:
            yield
        finally:
            self._watchers -= 1

    @property
    def seconds(self) -> float:
        """Return the mean pause between two messages to one watcher."""
        return min(_LONGEST_PAUSE_SECONDS, max(self._interval, self._watchers / self._messages_per_second))

    async def pause(self) -> None:
        """Wait before the next message to a watcher: at random, so that not all get theirs at once, but to a tick.

        Watchers that resume at the same tick share a read.
        """
        now = time.monotonic()
        until = now + self.seconds * random.uniform(0.75, 1.25)  # noqa: S311  no secret
        await asyncio.sleep(math.ceil(until / _TICK_SECONDS) * _TICK_SECONDS - now)


@dataclass(frozen=True, slots=True)
class _Read(Generic[T]):
    """A read that watchers share."""

    #: The feed's version of the key when the read began.
    version: int
    #: time.monotonic() when the read began.
    began: float
    task: asyncio.Task[Mapping[str, T]]


class Watch(Generic[T]):
    """Follows aggregates. All watchers in a process share one read for each change, however many they are."""

    def __init__(self, feed: ChangeFeed, read: Callable[[Collection[str]], Awaitable[Mapping[str, T]]]) -> None:
        """`read` returns the existing aggregates with these keys, by key; it must not depend on the call."""
        self._feed = feed
        self._read = read
        #: The last shared read of each key.
        self._reads: dict[str, _Read[T]] = {}

    async def values(self, keys: Collection[str]) -> AsyncGenerator[Mapping[str, T], None]:
        """Yield the aggregates with these keys, and then those that may have changed; raises Draining at shutdown."""
        began = None
        try:
            async with aclosing(self._feed.subscribe(keys)) as changes:
                async for changed in changes:
                    if began is None:
                        began = time.monotonic()
                        yield await self._read(changed)
                        continue
                    reads = self._share(changed, began)
                    began = max(read.began for read in reads.values())
                    yield await _results(reads)
        finally:
            for key in keys:
                if not self._feed.is_watched(key):
                    self._reads.pop(key, None)

    def _share(self, keys: Collection[str], last: float) -> Mapping[str, _Read[T]]:
        """Return a read of each key that began after the key's last notification, of this watcher or of another.

        None began before `last`, when this watcher's last read began: a watcher sees no older state after a newer one.
        """
        if missing := [key for key in keys if not self._is_current(key, last)]:
            # A context of its own: it must not inherit the deadline of the watcher that happens to be first.
            task = asyncio.create_task(_awaited(self._read(missing)), context=Context())
            for key in missing:
                self._reads[key] = _Read(self._feed.version(key), time.monotonic(), task)
        return {key: self._reads[key] for key in keys}

    def _is_current(self, key: str, last: float) -> bool:
        read = self._reads.get(key)
        if read is None or read.version != self._feed.version(key):
            return False
        failed = read.task.done() and (read.task.cancelled() or read.task.exception() is not None)
        return not failed and read.began >= max(last, time.monotonic() - _SHARED_POLL_SECONDS)


async def _results(reads: Mapping[str, _Read[T]]) -> Mapping[str, T]:
    """Return what each key's own read returns of it: another's may be older."""
    found: dict[str, T] = {}
    for key, read in reads.items():
        values = await asyncio.shield(read.task)
        if key in values:
            found[key] = values[key]
    return found


async def _awaited(reading: Awaitable[T]) -> T:
    return await reading


def _set(event: asyncio.Event, _connection: Any) -> None:
    event.set()
