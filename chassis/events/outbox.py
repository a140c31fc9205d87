"""The transactional outbox: an event is a row of the change's own transaction, and a relay publishes it afterwards.

Nothing is published that did not commit, and nothing that committed is lost; it may be published twice, and the
consumer's inbox drops the duplicate.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC

from google.protobuf.message import Message

from chassis.events.bus import Bus, Event
from chassis.metrics import PUBLISHED, RELAY_LEADER, work_proceeds, work_waits
from chassis.postgres.change_feed import CHANNEL
from chassis.postgres.database import Database, Record, Transaction
from chassis.telemetry import inject
from shop.topics import EVENTS

log = logging.getLogger(__name__)

_INSERT = """
INSERT INTO outbox (topic, key, type, payload, traceparent)
SELECT topic, key, type, payload, traceparent FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::text[])
    WITH ORDINALITY AS event (topic, key, type, payload, traceparent, position) ORDER BY position"""
#: Never a cursor on `id`: sequence order is not commit order, and a cursor would skip late commits.
#: It also notifies the change feed, which spares a round trip; a key's duplicates fold into one notification.
_UNPUBLISHED = """
SELECT *, pg_notify($1, key) FROM (SELECT * FROM outbox WHERE publish_time IS NULL ORDER BY id LIMIT $2) AS batch
ORDER BY id"""
_PUBLISHED = "UPDATE outbox SET publish_time = now() WHERE id = ANY($1)"

_LEADER_LOCK = 0x6F757462
_HINTS = "outbox"
_BATCH = 500
#: Half of Kafka's default limit of a message (1 MiB, `message.max.bytes` and the producer's `max_request_size`), and
#: far below Redis's: an event that the bus rejects would block all others.
LARGEST_BYTES = 512 * 1024
#: In characters; the notification of a key holds 8,000 bytes.
LONGEST_KEY = 1_000
#: A hint may be lost with its process, so the leader also polls.
_POLL_SECONDS = 1.0
#: Commits within this time are published together: many small batches would cost more.
_LINGER_SECONDS = 0.01


async def add(tx: Transaction, *events: Message, traces: Mapping[str, str] | None = None) -> None:
    """Add `events` to the transaction: they are published, in this order, if it commits.

    They belong to the trace of the current call, or to those that `traces` names by key.
    Raises ValueError for one that is too large to be published, so that its change fails as well.
    """
    if not events:
        return
    own = inject().get("traceparent", "")
    kinds = [EVENTS[event.DESCRIPTOR.full_name] for event in events]
    keys = [getattr(event, kind.key) for kind, event in zip(kinds, events, strict=True)]
    payloads = [event.SerializeToString() for event in events]
    if max(map(len, payloads)) > LARGEST_BYTES or max(map(len, keys)) > LONGEST_KEY:
        raise ValueError(f"an event is larger than {LARGEST_BYTES} bytes or its key than {LONGEST_KEY} characters")
    await tx.execute(
        _INSERT,
        [kind.topic for kind in kinds],
        keys,
        [event.DESCRIPTOR.full_name for event in events],
        payloads,
        [(traces or {}).get(key, own) for key in keys],
    )


class Relay:
    """Publishes outbox rows in order. Every process runs one; an advisory lock lets one of them work."""

    def __init__(self, database: Database, bus: Bus, source: str) -> None:
        """Relay the rows of `database` to `bus`, as events of the service `source`."""
        self._database = database
        self._bus = bus
        self._source = source
        self._hint = asyncio.Event()
        database.after_every_commit(self._hint.set)

    async def run(self) -> None:
        """Work until cancelled; lead while no other process does, and restart after any failure."""
        while True:
            try:
                async with self._leadership() as lost:
                    await self._lead(lost)
            except Exception as error:  # noqa: BLE001  the libraries of the database and the bus raise many classes
                work_waits("outbox", type(error).__name__)
                log.warning("outbox relay restarts", extra={"error": repr(error)})
                await asyncio.sleep(_POLL_SECONDS)

    @asynccontextmanager
    async def _leadership(self) -> AsyncIterator[Callable[[], bool]]:
        """Wait for the leader's lock, held by its own connection; yield a function that returns whether it was lost."""
        async with self._database.pool.acquire() as connection:
            try:
                while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LEADER_LOCK):
                    await self._wait()
                    await connection.execute("SELECT pg_notify($1, '')", _HINTS)
                await connection.add_listener(_HINTS, lambda *_: self._hint.set())
                RELAY_LEADER.set(1)
                yield connection.is_closed
            finally:
                RELAY_LEADER.set(0)
                connection.terminate()  # the lock ends with its session, whatever the error

    async def _lead(self, lost: Callable[[], bool]) -> None:
        while not lost():
            while await self._publish_batch():
                pass
            await self._wait()

    async def _publish_batch(self) -> bool:
        rows = await self._database.pool.fetch(_UNPUBLISHED, CHANNEL, _BATCH)
        if rows:
            await self._bus.publish([self._event(row) for row in rows])
            await self._database.pool.execute(_PUBLISHED, [row["id"] for row in rows])
            for row in rows:
                PUBLISHED.labels(row["type"]).inc()
        work_proceeds("outbox")
        return len(rows) == _BATCH

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
