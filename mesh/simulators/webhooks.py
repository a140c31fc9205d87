"""Delivers events as signed webhooks (Standard Webhooks), at least once and in any order.

An event is written in the transaction of its change, and sent until it is accepted.
"""

import asyncio
import base64
import hashlib
import hmac
import logging
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from secrets import token_hex
from typing import Any

import httpx
import orjson

from mesh.simulators.store import Row, SqliteStore, timestamp

SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    sequence        INTEGER PRIMARY KEY AUTOINCREMENT,
    id              TEXT NOT NULL UNIQUE,
    type            TEXT NOT NULL,
    subject         TEXT NOT NULL,
    body            BLOB NOT NULL,
    create_time     TEXT NOT NULL,
    due             REAL NOT NULL,
    attempts        INTEGER NOT NULL DEFAULT 0,
    deliveries_left INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS events_by_due ON events (due) WHERE deliveries_left > 0;
CREATE INDEX IF NOT EXISTS events_by_subject ON events (subject) WHERE deliveries_left > 0;
"""

MAX_IN_FLIGHT = 32
REPLY_SECONDS = 10.0
FIRST_BACKOFF, MAX_BACKOFF = 0.2, 10.0

log = logging.getLogger(__name__)


def sign(secrets: Sequence[str], event_id: str, seconds: int, body: bytes) -> dict[str, str]:
    """Return the three headers; one signature for each secret, so that secrets can be rotated."""
    content = f"{event_id}.{seconds}.".encode() + body
    keys = [_key(secret) for secret in secrets]
    digests = [base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode() for key in keys]
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(seconds),
        "webhook-signature": " ".join(f"v1,{digest}" for digest in digests),
    }


def _key(secret: str) -> bytes:
    if not secret.startswith("whsec_"):
        raise ValueError("WEBHOOK_SECRET is not whsec_ and base64")
    return base64.b64decode(secret.removeprefix("whsec_"), validate=True)


class Webhooks:
    """The events of one simulator and their delivery; without a URL they are only stored."""

    def __init__(self, store: SqliteStore, url: str | None, secrets: Sequence[str]) -> None:
        sign(secrets, "", 0, b"")  # an invalid secret fails at the start, not at the first event
        self._store = store
        self._url = url
        self._secrets = secrets
        self._wakeup = asyncio.Event()
        self._in_flight: set[str] = set()
        self._first_attempts: dict[str, asyncio.Event] = {}

    def add(self, kind: str, subject: str, data: Any, *, copies: int = 1, delay: float = 0.0) -> str:
        """Write an event in the caller's transaction, for delivery after its commit; return its id."""
        event_id, now = f"evt_{token_hex(12)}", timestamp()
        self._store.execute(
            "INSERT INTO events (id, type, subject, body, create_time, due, deliveries_left)"
            " VALUES (:id, :type, :subject, :body, :now, :due, :copies)",
            id=event_id,
            type=kind,
            subject=subject,
            body=orjson.dumps({"type": kind, "timestamp": now, "data": data}),
            now=now,
            due=time.time() + delay,
            copies=copies,
        )
        self._wakeup.set()
        return event_id

    def pending(self, subject: str) -> bool:
        """Return whether an event of this subject is not delivered yet."""
        sql = "SELECT 1 FROM events WHERE subject = :subject AND deliveries_left > 0 LIMIT 1"
        return self._store.row(sql, subject=subject) is not None

    async def wait_for_first_attempt(self, event_id: str, within: float) -> None:
        """Wait until the event was sent once, accepted or not, for at most `within` seconds."""
        attempt = self._first_attempts.setdefault(event_id, asyncio.Event())
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await attempt.wait()
        self._first_attempts.pop(event_id, None)

    async def deliver(self) -> None:
        """Send due events until cancelled."""
        if not self._url:
            return
        async with (
            httpx.AsyncClient(timeout=REPLY_SECONDS, trust_env=False) as http,
            asyncio.TaskGroup() as tasks,
        ):
            while True:
                self._wakeup.clear()
                # One time for both queries, so that no event is missed between them.
                now = time.time()
                for event in self._due(now):
                    self._in_flight.add(event["id"])
                    tasks.create_task(self._send(http, self._url, event))
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._until_next_due(now)):
                        await self._wakeup.wait()

    def _due(self, now: float) -> list[Row]:
        waiting = self._store.rows(
            "SELECT * FROM events WHERE deliveries_left > 0 AND due <= :now ORDER BY due, sequence LIMIT :limit",
            now=now,
            limit=MAX_IN_FLIGHT,
        )
        idle = [event for event in waiting if event["id"] not in self._in_flight]
        return idle[: MAX_IN_FLIGHT - len(self._in_flight)]

    def _until_next_due(self, now: float) -> float | None:
        sql = "SELECT min(due) AS due FROM events WHERE deliveries_left > 0 AND due > :now"
        next_event = self._store.row(sql, now=now)
        return next_event["due"] - now if next_event and next_event["due"] else None

    async def _send(self, http: httpx.AsyncClient, url: str, event: Row) -> None:
        event_id, body = event["id"], event["body"]
        headers = sign(self._secrets, event_id, int(time.time()), body) | {"content-type": "application/json"}
        try:
            accepted = (await http.post(url, content=body, headers=headers)).is_success
        except httpx.HTTPError:
            accepted = False
        log.info(
            "webhook %s %s attempt %d %s",
            event["type"],
            event_id,
            event["attempts"] + 1,
            "ok" if accepted else "no",
        )
        self._record_attempt(event_id, event["attempts"], accepted=accepted)
        self._in_flight.discard(event_id)
        self._wakeup.set()
        if first := self._first_attempts.get(event_id):
            first.set()

    def _record_attempt(self, event_id: str, attempts_before: int, *, accepted: bool) -> None:
        backoff = min(FIRST_BACKOFF * 2 ** min(attempts_before, 16), MAX_BACKOFF)
        jittered = backoff * random.uniform(0.8, 1.2)  # noqa: S311 - spreads retries, guards nothing
        self._store.execute(
            "UPDATE events SET attempts = attempts + 1, deliveries_left = deliveries_left - :accepted,"
            " due = :due WHERE id = :id",
            id=event_id,
            accepted=int(accepted),
            due=time.time() + (0 if accepted else jittered),
        )
