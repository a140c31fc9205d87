"""What changed, for those who watch: each process hears the keys of the aggregates that any process changed."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Collection
from contextlib import suppress
from functools import partial
from typing import Any

import asyncpg

#: The outbox relay notifies this channel with the key of every event it is about to publish.
CHANNEL = "news"

#: A notification may be lost with a connection, so watchers also look by themselves.
_LOOK_SECONDS = 10.0
#: Until a connection that broke is replaced.
_AGAIN_SECONDS = 1.0


class Draining(Exception):
    """The server goes away: the watcher should come back, with its resume token, and will reach another."""


class ChangeFeed:
    """Wakes the watchers of changed aggregates. One for each process."""

    def __init__(self) -> None:
        """Start without a source; `listen` brings the news in."""
        self._watchers: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._closed = False

    async def listen(self, pool: asyncpg.Pool) -> None:
        """Hear notifications until cancelled, on a connection of its own that is replaced when it breaks."""
        while True:
            try:
                async with pool.acquire() as connection:
                    broken = asyncio.Event()
                    connection.add_termination_listener(partial(_set, broken))
                    await connection.add_listener(CHANNEL, self._on_notify)
                    self._wake_all()  # whatever was told between two connections
                    try:
                        await broken.wait()
                    finally:
                        if not connection.is_closed():
                            await connection.remove_listener(CHANNEL, self._on_notify)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
                await asyncio.sleep(_AGAIN_SECONDS)

    async def subscribe(self, keys: Collection[str]) -> AsyncIterator[None]:
        """Yield at once, and again whenever one of `keys` may have changed; raises Draining at shutdown."""
        event = asyncio.Event()
        for key in keys:
            self._watchers[key].add(event)
        try:
            while True:
                event.clear()
                yield
                if not self._closed:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_LOOK_SECONDS):
                            await event.wait()
                if self._closed:
                    raise Draining
        finally:
            for key in keys:
                self._watchers[key].discard(event)
                if not self._watchers[key]:
                    del self._watchers[key]

    def close(self) -> None:
        """End all watching."""
        self._closed = True
        self._wake_all()

    def _on_notify(self, _connection: Any, _pid: int, _channel: str, key: object) -> None:
        for event in self._watchers.get(str(key), ()):
            event.set()

    def _wake_all(self) -> None:
        for events in self._watchers.values():
            for event in events:
                event.set()


def _set(event: asyncio.Event, _connection: Any) -> None:
    event.set()
