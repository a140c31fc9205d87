"""Consuming events: an inbox row in the effect's transaction applies each event once for each consumer."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from google.protobuf.message import DecodeError, Message

from chassis.domain.backoff import backoff
from chassis.events.bus import Bus, Event
from chassis.metrics import APPLIED, EVENT_AGE, work_proceeds, work_waits
from chassis.postgres.database import UNAVAILABLE_ERRORS, Database, Transaction
from chassis.telemetry import traced
from shop.topics import EVENTS

log = logging.getLogger(__name__)

#: Applies one event inside the transaction that also inserts its inbox row.
Handler = Callable[[Transaction, Any], Awaitable[None]]

_CLAIM = "INSERT INTO inbox (consumer, event_id) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING true"
_DEAD_LETTER = """
INSERT INTO dead_letter (consumer, event_id, topic, key, type, payload, traceparent, attempts, error)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING"""

#: How long the inbox remembers an event: far longer than an applied one can be delivered again. Kafka stores events for
#: 7 days by default (configure no more), and a Redis group gets again only what its last leader did not acknowledge.
RETENTION = timedelta(days=30)

_ATTEMPTS = 5
_FIRST_PAUSE = timedelta(seconds=0.1)
_LONGEST_PAUSE = timedelta(seconds=5)


class Consumer:
    """Applies the events of some topics with one handler for each message type; other types are skipped."""

    def __init__(self, name: str, database: Database, bus: Bus, handlers: Mapping[type[Message], Handler]) -> None:
        """`name` is both the consumer group and the inbox's consumer: the service's name."""
        self._name = name
        self._database = database
        self._bus = bus
        self._handlers = {kind.DESCRIPTOR.full_name: (kind, handler) for kind, handler in handlers.items()}
        self._work = "consumer"
        #: When the oldest event that was received and is not acknowledged was published, in seconds since the epoch.
        self._waiting_since: float | None = None
        self._topics = sorted({EVENTS[name].topic for name in self._handlers})

    async def run(self) -> None:
        """Consume until cancelled; after a failure of bus or database, resume with the unacknowledged events."""
        failures = 0
        while True:
            try:
                async with self._bus.subscribe(self._name, self._topics) as subscription:
                    async for batch in subscription:
                        self._waiting_since = _published(batch[0]) if batch else None
                        for event in batch:
                            await self._settle(event)
                        await subscription.acknowledge()
                        self._waiting_since = None
                        work_proceeds(self._work)
                        failures = 0
            except Exception as error:  # noqa: BLE001  the bus's own libraries raise what they like
                failures += 1
                work_waits(self._work, type(error).__name__)
                log.warning("consumer restarts", extra={"consumer": self._name, "error": repr(error)})
                await _pause(failures)

    async def lag_seconds(self) -> float:
        """Return the age of the oldest event that was received and is not applied."""
        return max(time.time() - self._waiting_since, 0.0) if self._waiting_since is not None else 0.0

    async def _settle(self, event: Event) -> None:
        """Apply the event, or dead-letter it after some attempts, so that later events are not blocked."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                await self._apply(event)
            except UNAVAILABLE_ERRORS:
                raise  # no fault of the event: it stays unacknowledged
            except Exception as error:
                if attempt == _ATTEMPTS or isinstance(error, DecodeError):
                    log.exception("event dead-lettered", extra={"consumer": self._name, "event": event.id})
                    await self._dead_letter(event, attempt, error)
                    APPLIED.labels(event.type, "dead_lettered").inc()
                    return
                await _pause(attempt)
            else:
                return

    async def _apply(self, event: Event) -> None:
        if not event.type:
            raise DecodeError("not a CloudEvent: it has no ce_type")
        if event.type not in self._handlers:
            return
        kind, handler = self._handlers[event.type]
        with traced(event.traceparent, event.type):
            async with self._database.transaction() as tx:
                # The claim comes first, so that a duplicate waits here before it can have any effect.
                if await tx.fetchval(_CLAIM, self._name, event.id):
                    await handler(tx, kind.FromString(event.payload))
        APPLIED.labels(event.type, "applied").inc()
        if (published := _published(event)) is not None:
            EVENT_AGE.observe(max(time.time() - published, 0.0))

    async def _dead_letter(self, event: Event, attempts: int, error: Exception) -> None:
        async with self._database.transaction() as tx:
            await tx.execute(
                _DEAD_LETTER,
                self._name,
                event.id,
                event.topic,
                event.key,
                event.type,
                event.payload,
                event.traceparent,
                attempts,
                f"{type(error).__name__}: {error}".replace("\0", "\ufffd")[:1000],
            )


def _published(event: Event) -> float | None:
    try:
        return datetime.fromisoformat(event.time).timestamp()
    except ValueError:
        return None  # an event of a foreign source may lack it


async def _pause(failures: int) -> None:
    await asyncio.sleep(backoff(failures, _FIRST_PAUSE, _LONGEST_PAUSE, random.random()).total_seconds())  # noqa: S311
