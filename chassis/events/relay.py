"""The relay of the outbox: publishes its rows in order, from one process at a time, and again what the bus has lost."""

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from asyncpg.pool import PoolConnectionProxy

from chassis.cancellation import cancel_and_wait
from chassis.events.bus import NO_POSITIONS, Bus, Event, EventsLost, Positions
from chassis.events.relay_state import LeaseLost, RelayState
from chassis.metrics import PUBLISHED, RELAY_LEADER, work_proceeds, work_waits
from chassis.postgres.change_feed import CHANNEL
from chassis.postgres.database import Database, Record

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Never a cursor on `id`: sequence order is not commit order, and a cursor would skip late commits. It begins at $3
#: since index entries of published rows stay for as long as an old snapshot, of a backup perhaps, may need them.
#: It also notifies the change feed, which spares a round trip; a key's duplicates fold into one notification.
_UNPUBLISHED = """
SELECT *, CASE WHEN id > $4 THEN pg_notify($1, key) END
FROM (SELECT * FROM outbox WHERE publish_time IS NULL AND id > $3 ORDER BY id LIMIT $2) AS batch ORDER BY id"""
_ANNOUNCE = """
SELECT id, pg_notify($1, key)
FROM (SELECT id, key FROM outbox WHERE publish_time IS NULL AND id > $2 ORDER BY id LIMIT $3) AS batch ORDER BY id"""

_HINTS = "outbox"
_BATCH = 500
_ANNOUNCED_BATCH = 10_000
#: A hint may be lost with its process, so the leader also polls.
_POLL_SECONDS = 1.0
#: Commits within this time are published together: many small batches would cost more.
_LINGER_SECONDS = 0.01
#: How often the bus is checked for events that it has lost.
_CHECK_SECONDS = 2.0
#: How often all of the outbox is searched for late commits. Between, rows below those of the last two searches are not.
_FULL_SEARCH_SECONDS = 15.0


class BusUnavailable(Exception):
    """The bus did not accept events: they wait in the outbox."""


class Relay:
    """Publishes outbox rows in order. Every process runs one; a lease lets one of them work."""

    def __init__(self, database: Database, bus: Bus, source: str, *, retention: timedelta = timedelta(days=7)) -> None:
        """Relay the rows of `database` to `bus`, as events of the service `source`; they are stored for `retention`."""
        self._database = database
        self._bus = bus
        self._source = source
        self._state = RelayState(database, uuid.uuid4().hex, retention)
        self._leads = False
        self._hint = asyncio.Event()
        #: What the bus checks next: the places of all events that were published before a time.
        self._checked: tuple[datetime | None, Positions] = (None, NO_POSITIONS)
        self._acknowledged = NO_POSITIONS
        self._check_due = 0.0
        self._highest = self._floor = self._next_floor = 0
        self._full_search_due = 0.0
        #: Rows up to this id have notified the change feed while the bus was unavailable.
        self._announced = 0
        database.after_every_commit(self._hint.set)

    async def run(self) -> None:
        """Work until cancelled; lead while no other process does, and restart after any failure."""
        while True:
            try:
                async with self._leadership():
                    await self._lead()
            except LeaseLost:
                log.warning("another process publishes the outbox now")
            except Exception as error:  # noqa: BLE001  the libraries of the database and the bus raise many classes
                work_waits("outbox", type(error).__name__)
                log.warning("outbox relay restarts", extra={"error": repr(error)})
                await asyncio.sleep(_POLL_SECONDS)

    @asynccontextmanager
    async def _leadership(self) -> AsyncIterator[None]:
        """Wait for the lease, and renew it on a connection of its own while the block runs.

        The same connection receives the notifications of the change feed.
        """
        async with self._database.pool.acquire() as connection:
            try:
                await self._database.change_feed.attach(connection)
                while not await self._state.acquire(connection):
                    await self._wait()
                    await connection.execute("SELECT pg_notify($1, '')", _HINTS)
                await connection.add_listener(_HINTS, lambda *_: self._hint.set())
                self._leads = True
                renewal = asyncio.create_task(self._keep_lease(connection))
                RELAY_LEADER.set(1)
                try:
                    yield
                finally:
                    await cancel_and_wait(renewal)
                    with suppress(Exception):  # it expires
                        async with asyncio.timeout(_POLL_SECONDS):
                            await self._state.leave(connection)
            finally:
                self._leads = False
                RELAY_LEADER.set(0)
                connection.terminate()  # it listens

    async def _keep_lease(self, connection: PoolConnectionProxy) -> None:
        try:
            while await self._state.renew(connection):  # noqa: ASYNC110  no event says that time has passed
                await asyncio.sleep(self._state.renewal_seconds)
        except Exception as error:  # noqa: BLE001  whatever it is, the lease is not renewed
            log.warning("lease of the outbox not renewed", extra={"error": repr(error)})
        self._leads = False
        self._hint.set()

    async def _lead(self) -> None:
        await self._state.take_over()
        self._highest = await self._database.pool.fetchval("SELECT coalesce(max(id), 0) FROM outbox")
        self._floor = self._next_floor = self._announced = 0
        self._full_search_due = self._check_due = 0.0
        self._checked = (None, self._state.positions)
        while self._leads:
            try:
                more = await self._publish_batch()
                await self._check_if_due()
            except EventsLost as lost:
                log.error("the bus has lost events, which are published again", extra={"lost": str(lost)})  # noqa: TRY400
                await self._state.publish_again()
                self._floor, self._checked, self._acknowledged = 0, (None, NO_POSITIONS), NO_POSITIONS
            except BusUnavailable as error:
                work_waits("outbox", type(error.__cause__).__name__)
                log.warning("events wait for the bus", extra={"error": repr(error.__cause__)})
                await self._announce_until_retry()
            else:
                work_proceeds("outbox")
                if not more:
                    await self._wait()

    async def _publish_batch(self) -> bool:
        """Publish the oldest unpublished events; return whether there may be more."""
        searches_all = time.monotonic() >= self._full_search_due
        floor = 0 if searches_all else self._floor
        rows = await self._database.pool.fetch(_UNPUBLISHED, CHANNEL, _BATCH, floor, self._announced)
        if rows:
            events = [self._event(row) for row in rows]
            self._state.positions = await _of_bus(self._bus.publish(events, self._state.positions))
            await self._state.mark_published([row["id"] for row in rows])
            self._highest = max(self._highest, rows[-1]["id"])
            for row in rows:
                PUBLISHED.labels(row["type"]).inc()
        if len(rows) == _BATCH:
            return True
        self._announced = 0
        if searches_all:
            self._floor, self._next_floor = self._next_floor, self._highest
            self._full_search_due = time.monotonic() + _FULL_SEARCH_SECONDS
        return False

    async def _check_if_due(self) -> None:
        """Check that the bus still has the published events; note what every group has acknowledged."""
        if time.monotonic() < self._check_due:
            return
        published_before, positions = self._checked
        if await _of_bus(self._bus.maintain(positions)) and published_before and positions != self._acknowledged:
            self._state.acknowledge_time, self._acknowledged = published_before, positions
        self._checked = (await self._state.save(), self._state.positions)
        self._check_due = time.monotonic() + _CHECK_SECONDS

    async def _announce_until_retry(self) -> None:
        """Notify the change feed of all unpublished events: watchers do not wait for the bus."""
        retry = time.monotonic() + _POLL_SECONDS
        while self._leads and (left := retry - time.monotonic()) > 0:
            rows = await self._database.pool.fetch(_ANNOUNCE, CHANNEL, self._announced, _ANNOUNCED_BATCH)
            if rows:
                self._announced = rows[-1]["id"]
            if len(rows) < _ANNOUNCED_BATCH:
                with suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await self._wait()

    async def _wait(self) -> None:
        """Wait for a commit of this process or a hint of another, at most the polling interval."""
        try:
            async with asyncio.timeout(_POLL_SECONDS):
                await self._hint.wait()
            await asyncio.sleep(_LINGER_SECONDS)
        except TimeoutError:
            pass
        self._hint.clear()

    def _event(self, row: Record) -> Event:
        return Event(
            id=str(row["event_id"]),
            type=row["type"],
            topic=row["topic"],
            key=row["key"],
            source=self._source,
            time=row["create_time"].astimezone(UTC).isoformat().replace("+00:00", "Z"),
            payload=row["payload"],
            traceparent=row["traceparent"],
        )


async def _of_bus(answer: Awaitable[T]) -> T:
    """Return the bus's answer; raises EventsLost, or BusUnavailable for any error of its library."""
    try:
        return await answer
    except EventsLost:
        raise
    except Exception as error:
        raise BusUnavailable from error
