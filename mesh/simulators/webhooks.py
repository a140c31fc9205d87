"""Tells the shop what happened by signed webhooks (Standard Webhooks), at least once and in any order.

An event is written in the transaction of the change it tells of, and sent until the shop takes it.
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

from mesh.simulators.store import Journal, Row, timestamp

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

AT_ONCE = 32
ANSWER_WITHIN = 10.0
FIRST_RETRY_AFTER, RETRY_AFTER_AT_MOST = 0.2, 10.0

log = logging.getLogger(__name__)


def sign(secrets: Sequence[str], event_id: str, seconds: int, body: bytes) -> dict[str, str]:
    """The three headers; one signature per secret, so that the shop can change over from one to the next."""
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
    """The events of one simulator and their delivery; without an address they are only kept."""

    def __init__(self, journal: Journal, url: str | None, secrets: Sequence[str]) -> None:
        sign(secrets, "", 0, b"")  # a secret that is none is found now, not at the first event
        self._journal = journal
        self._url = url
        self._secrets = secrets
        self._woken = asyncio.Event()
        self._under_way: set[str] = set()
        self._first_attempts: dict[str, asyncio.Event] = {}

    def add(self, kind: str, subject: str, data: Any, *, copies: int = 1, delay: float = 0.0) -> str:
        """Writes an event, inside the transaction of its cause; it leaves once that is committed."""
        event_id, now = f"evt_{token_hex(12)}", timestamp()
        self._journal.execute(
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
        self._woken.set()
        return event_id

    def pending(self, subject: str) -> bool:
        """Whether an earlier event of this subject is still on its way."""
        sql = "SELECT 1 FROM events WHERE subject = :subject AND deliveries_left > 0 LIMIT 1"
        return self._journal.row(sql, subject=subject) is not None

    async def attempted(self, event_id: str, within: float) -> None:
        """Waits until this event has been sent once, whatever came of it."""
        attempt = self._first_attempts.setdefault(event_id, asyncio.Event())
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await attempt.wait()
        self._first_attempts.pop(event_id, None)

    async def deliver(self) -> None:
        """Sends what is due, for as long as the simulator runs."""
        if not self._url:
            return
        async with (
            httpx.AsyncClient(timeout=ANSWER_WITHIN, trust_env=False) as http,
            asyncio.TaskGroup() as tasks,
        ):
            while True:
                self._woken.clear()
                # One moment for both questions: what is not due by it must be waited for.
                now = time.time()
                for event in self._due(now):
                    self._under_way.add(event["id"])
                    tasks.create_task(self._send(http, self._url, event))
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._until_next_due(now)):
                        await self._woken.wait()

    def _due(self, now: float) -> list[Row]:
        waiting = self._journal.rows(
            "SELECT * FROM events WHERE deliveries_left > 0 AND due <= :now ORDER BY due, sequence LIMIT :limit",
            now=now,
            limit=AT_ONCE,
        )
        idle = [event for event in waiting if event["id"] not in self._under_way]
        return idle[: AT_ONCE - len(self._under_way)]

    def _until_next_due(self, now: float) -> float | None:
        sql = "SELECT min(due) AS due FROM events WHERE deliveries_left > 0 AND due > :now"
        next_event = self._journal.row(sql, now=now)
        return next_event["due"] - now if next_event and next_event["due"] else None

    async def _send(self, http: httpx.AsyncClient, url: str, event: Row) -> None:
        event_id, body = event["id"], event["body"]
        headers = sign(self._secrets, event_id, int(time.time()), body) | {"content-type": "application/json"}
        try:
            taken = (await http.post(url, content=body, headers=headers)).is_success
        except httpx.HTTPError:
            taken = False
        log.info(
            "webhook %s %s attempt %d %s",
            event["type"],
            event_id,
            event["attempts"] + 1,
            "ok" if taken else "no",
        )
        self._note_attempt(event_id, event["attempts"], taken=taken)
        self._under_way.discard(event_id)
        self._woken.set()
        if first := self._first_attempts.get(event_id):
            first.set()

    def _note_attempt(self, event_id: str, attempts_before: int, *, taken: bool) -> None:
        backoff = min(FIRST_RETRY_AFTER * 2 ** min(attempts_before, 16), RETRY_AFTER_AT_MOST)
        jittered = backoff * random.uniform(0.8, 1.2)  # noqa: S311 - spreads retries, guards nothing
        self._journal.execute(
            "UPDATE events SET attempts = attempts + 1, deliveries_left = deliveries_left - :taken,"
            " due = :due WHERE id = :id",
            id=event_id,
            taken=int(taken),
            due=time.time() + (0 if taken else jittered),
        )
