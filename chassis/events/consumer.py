"""Consuming events: an inbox row in the effect's transaction applies each event once for each consumer."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from google.protobuf.message import DecodeError, Message

from chassis.domain.backoff import backoff
from chassis.events import dead_letters
from chassis.events.bus import Bus, Event, owner_of
from chassis.metrics import APPLIED, EVENT_AGE, work_proceeds, work_waits
from chassis.postgres.change_feed import Draining
from chassis.postgres.database import CONTENTION_ERRORS, UNAVAILABLE_ERRORS, Database, Transaction
from chassis.telemetry import traced
from shop.topics import EVENTS

log = logging.getLogger(__name__)

#: Applies one event inside the transaction that also inserts its inbox row.
Handler = Callable[[Transaction, Any], Awaitable[None]]

#: A dead letter is left to its operator, also when it is delivered again.
_CLAIM = """
INSERT INTO inbox (consumer, event_id)
SELECT $1::text, $2::uuid WHERE NOT EXISTS (SELECT FROM dead_letter WHERE consumer = $1 AND event_id = $2)
ON CONFLICT DO NOTHING RETURNING true"""
_CLAIM_ALL = """
INSERT INTO inbox (consumer, event_id)
SELECT $1::text, id FROM unnest($2::uuid[]) AS event (id)
WHERE NOT EXISTS (SELECT FROM dead_letter WHERE consumer = $1 AND event_id = id)
ON CONFLICT DO NOTHING RETURNING event_id"""
_CLAIM_DEAD_LETTER = "INSERT INTO inbox (consumer, event_id) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING true"

#: Trouble of the database, however long it lasts, is no fault of the event.
_DATABASE_ERRORS = (*UNAVAILABLE_ERRORS, *CONTENTION_ERRORS)
_FIRST_PAUSE = timedelta(seconds=0.1)
_LONGEST_PAUSE = timedelta(seconds=5)
#: Events that are applied in one transaction, at most, so that it does not hold its locks for long.
_TOGETHER = 50


class _HandlerFailed(Exception):
    """A handler failed in a transaction of several events."""

    def __init__(self, event_id: str) -> None:
        super().__init__()
        self.event_id = event_id


class Consumer:
    """Applies the events of some topics with one handler for each message type; other types are skipped."""

    def __init__(
        self,
        name: str,
        database: Database,
        bus: Bus,
        handlers: Mapping[type[Message], Handler],
        *,
        retry_seconds: float = 10.0,
    ) -> None:
        """`name` is both the consumer group and the inbox's consumer: the service's name.

        An event that its handler fails to apply for `retry_seconds` is dead-lettered.
        """
        self._name = name
        self._database = database
        self._bus = bus
        self._handlers = {kind.DESCRIPTOR.full_name: (kind, handler) for kind, handler in handlers.items()}
        self._topics = sorted({EVENTS[name].topic for name in self._handlers})
        self._retry_seconds = retry_seconds
        self._work = "consumer"
        #: When the oldest event that was received and is not acknowledged was published, in seconds since the epoch.
        self._waiting_since: float | None = None

    async def run(self) -> None:
        """Consume until cancelled; after a failure of bus or database, resume with the unacknowledged events."""
        failures = 0
        while True:
            try:
                async with self._bus.subscribe(self._name, self._topics) as subscription:
                    async for batch in subscription:
                        self._waiting_since = _published(batch[0]) if batch else None
                        for start in range(0, len(batch), _TOGETHER):
                            await self._settle_all(batch[start : start + _TOGETHER])
                            failures = 0
                        await subscription.acknowledge()
                        self._waiting_since = None
                        work_proceeds(self._work)
            except Exception as error:  # noqa: BLE001  the bus's own libraries raise what they like
                failures += 1
                work_waits(self._work, type(error).__name__)
                log.warning("consumer restarts", extra={"consumer": self._name, "error": repr(error)})
                await _pause(failures)

    async def redrive(self) -> None:
        """Apply the dead letters whose redrive is requested, until the server drains."""
        try:
            async for _ in self._database.change_feed.subscribe([dead_letters.FEED_KEY]):
                try:
                    while await self._redrive_next():
                        pass
                except _DATABASE_ERRORS as error:
                    log.warning("redrive waits for the database", extra={"error": repr(error)})
        except Draining:
            pass

    async def lag_seconds(self) -> float:
        """Return the age of the oldest event that was received and is not applied."""
        return max(time.time() - self._waiting_since, 0.0) if self._waiting_since is not None else 0.0

    async def _settle_all(self, events: Sequence[Event]) -> None:
        """Apply the events in one transaction; if one of them fails, each in a transaction of its own."""
        failed = ""
        if len(events) > 1 and all(map(self._is_expected, events)):
            try:
                return await self._apply_all(events)
            except UNAVAILABLE_ERRORS:
                raise  # they stay unacknowledged
            except _HandlerFailed as error:
                failed = error.event_id
            except Exception as error:  # noqa: BLE001  whose fault it is shows when each is applied alone
                log.info("events are applied one by one", extra={"consumer": self._name, "error": repr(error)})
        for event in events:
            await self._settle(event, attempt=int(event.id == failed))
        return None

    async def _settle(self, event: Event, attempt: int) -> None:
        """Apply the event, or dead-letter it after some time, so that later events are not blocked.

        `attempt` counts those that were made before.
        """
        began = time.monotonic()
        while True:
            attempt += 1
            try:
                await self._apply(event)
            except _DATABASE_ERRORS:
                raise  # it stays unacknowledged
            except Exception as error:
                if isinstance(error, DecodeError) or time.monotonic() - began >= self._retry_seconds:
                    log.exception("event dead-lettered", extra={"consumer": self._name, "event": event.id})
                    async with self._database.transaction() as tx:
                        await dead_letters.add(tx, self._name, event, attempt, error)
                    APPLIED.labels(event.type, "dead_lettered").inc()
                    return
                await _pause(attempt)
            else:
                return

    async def _apply_all(self, events: Sequence[Event]) -> None:
        """Apply the events in one transaction and in order; raises _HandlerFailed, or DecodeError before it begins."""
        wanted = {UUID(event.id): event for event in events if event.type in self._handlers}
        messages = {event_id: self._decoded(event) for event_id, event in wanted.items()}
        if not wanted:
            return
        async with self._database.transaction() as tx:
            rows = await tx.fetch(_CLAIM_ALL, self._name, list(wanted))
            claimed = {row["event_id"] for row in rows}
            for event_id, event in wanted.items():
                if event_id in claimed:
                    await self._handle_one_of_many(tx, event, messages[event_id])
        for event in wanted.values():
            _record(event)

    async def _handle_one_of_many(self, tx: Transaction, event: Event, message: Message) -> None:
        _, handler = self._handlers[event.type]
        try:
            with traced(event.traceparent, event.type):
                await handler(tx, message)
        except UNAVAILABLE_ERRORS:
            raise
        except Exception as error:
            raise _HandlerFailed(event.id) from error

    def _decoded(self, event: Event) -> Message:
        kind, _ = self._handlers[event.type]
        return kind.FromString(event.payload)

    def _is_expected(self, event: Event) -> bool:
        """Return whether the event is one to apply or to skip, and not one to reject or dead-letter at once."""
        return bool(event.type) and (event.type not in self._handlers or _is_genuine(event))

    async def _apply(self, event: Event) -> None:
        if not event.type:
            raise DecodeError("not a CloudEvent: it has no ce_type")
        if event.type not in self._handlers:
            return
        if not _is_genuine(event):
            extra = {"event": event.id, "type": event.type, "topic": event.topic, "source": event.source}
            log.error("event rejected: not published by the owner of its topic", extra=extra)
            APPLIED.labels(event.type, "rejected").inc()
            return
        with traced(event.traceparent, event.type):
            async with self._database.transaction() as tx:
                # The claim comes first, so that a duplicate waits here before it can have any effect.
                if await tx.fetchval(_CLAIM, self._name, event.id):
                    await self._handle(tx, event.type, event.payload)
        _record(event)

    async def _handle(self, tx: Transaction, event_type: str, payload: bytes) -> None:
        kind, handler = self._handlers[event_type]
        await handler(tx, kind.FromString(payload))

    async def _redrive_next(self) -> bool:
        """Apply the next dead letter whose redrive is requested; return whether there was one."""
        event_id = ""
        try:
            async with self._database.transaction() as tx:
                letter = await dead_letters.lock_next(tx, self._name)
                if letter is None:
                    return False
                event_id = str(letter["event_id"])
                with traced(letter["traceparent"], letter["type"]):
                    if await tx.fetchval(_CLAIM_DEAD_LETTER, self._name, event_id):
                        await self._handle(tx, letter["type"], letter["payload"])
                await dead_letters.mark_redriven(tx, self._name, event_id)
        except _DATABASE_ERRORS:
            raise  # the request stays
        except Exception as error:
            log.exception("redrive failed", extra={"consumer": self._name, "event": event_id})
            async with self._database.transaction() as tx:
                await dead_letters.mark_failed(tx, self._name, event_id, error)
        else:
            log.info("event redriven", extra={"consumer": self._name, "event": event_id})
        return True


def _is_genuine(event: Event) -> bool:
    """Return whether the event's type belongs to its topic, and its source to both."""
    return EVENTS[event.type].topic == event.topic and event.source == owner_of(event.topic)


def _record(event: Event) -> None:
    APPLIED.labels(event.type, "applied").inc()
    if (published := _published(event)) is not None:
        EVENT_AGE.observe(max(time.time() - published, 0.0))


def _published(event: Event) -> float | None:
    try:
        return datetime.fromisoformat(event.time).timestamp()
    except ValueError:
        return None  # an event of a foreign source may lack it


async def _pause(failures: int) -> None:
    await asyncio.sleep(backoff(failures, _FIRST_PAUSE, _LONGEST_PAUSE, random.random()).total_seconds())  # noqa: S311
