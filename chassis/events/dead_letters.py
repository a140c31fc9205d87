"""Dead letters: events that a handler could not apply, stored until an operator has them redriven."""

from typing import Any

from chassis.events.bus import Event
from chassis.postgres.change_feed import CHANNEL
from chassis.postgres.database import Record, Transaction

#: The key of the change feed that wakes the consumer when a redrive is requested.
FEED_KEY = "dead_letter"

_ADD = """
INSERT INTO dead_letter (consumer, event_id, topic, key, type, payload, traceparent, attempts, error)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING"""
#: Waits for no other process that redrives.
_LOCK_NEXT = """
SELECT event_id, type, payload, traceparent FROM dead_letter
WHERE consumer = $1 AND redrive_request_time IS NOT NULL AND redrive_time IS NULL
ORDER BY create_time LIMIT 1 FOR UPDATE SKIP LOCKED"""
_REDRIVEN = "UPDATE dead_letter SET redrive_time = now() WHERE consumer = $1 AND event_id = $2"
_REFUSED = """
UPDATE dead_letter SET attempts = attempts + 1, error = $3, redrive_request_time = NULL
WHERE consumer = $1 AND event_id = $2 AND redrive_time IS NULL"""
_REQUEST = """
WITH requested AS (
    UPDATE dead_letter SET redrive_request_time = now()
    WHERE redrive_time IS NULL AND ($1::uuid IS NULL OR event_id = $1) RETURNING true)
SELECT count(*), pg_notify($2, $3) FROM requested"""


async def add(tx: Transaction, consumer: str, event: Event, attempts: int, error: Exception) -> None:
    """Store an event that could not be applied; one that is stored already stays as it is."""
    attributes = (event.topic, event.key, event.type, event.payload, event.traceparent)
    await tx.execute(_ADD, consumer, event.id, *attributes, attempts, _text(error))


async def lock_next(tx: Transaction, consumer: str) -> Record | None:
    """Lock and return the oldest dead letter whose redrive is requested."""
    return await tx.fetchrow(_LOCK_NEXT, consumer)


async def mark_redriven(tx: Transaction, consumer: str, event_id: str) -> None:
    """Record that the event is applied now."""
    await tx.execute(_REDRIVEN, consumer, event_id)


async def mark_failed(tx: Transaction, consumer: str, event_id: str, error: Exception) -> None:
    """Record that the event failed again; it waits for the next request."""
    await tx.execute(_REFUSED, consumer, event_id, _text(error))


async def request_redrive(tx: Transaction, event_id: str | None) -> int:
    """Request the redrive of one event, or of all that are not redriven yet; return their number."""
    count: Any = await tx.fetchval(_REQUEST, event_id, CHANNEL, FEED_KEY)
    return int(count)


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".replace("\0", "\ufffd")[:1000]
