"""Where requests that change something are dealt with: once per key, and as badly as was asked for."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mesh.simulators import webhooks
from mesh.simulators.errors import ApiError
from mesh.simulators.faults import UNTROUBLED, Chance, Faults, Plan, Trouble
from mesh.simulators.fields import Fields
from mesh.simulators.serving import Settings, json_response, read_object
from mesh.simulators.store import Journal
from mesh.simulators.webhooks import Webhooks

SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    scope       TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    status      INTEGER NOT NULL,
    body        BLOB NOT NULL
);
"""

SILENCE = 60.0
WEBHOOK_FIRST_WITHIN = 5.0
# How long an event waits for a later one of its subject to overtake it.
OVERTAKE_WITHIN = 2.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    kind: str
    subject: str
    data: Any


@dataclass(frozen=True, slots=True)
class Answer:
    """What to say, and which events to tell."""

    status: int
    body: Any
    events: Sequence[Event] = ()


class Desk:
    """The journal, the faults and the webhooks of one simulator."""

    def __init__(self, settings: Settings, schema: str, chance: Chance) -> None:
        self.journal = Journal(settings.state_file, SCHEMA, webhooks.SCHEMA, schema)
        self.webhooks = Webhooks(self.journal, settings.webhook_url, settings.webhook_secrets)
        self.chance = chance
        self.chance.set(settings.faults)

    async def perform(
        self,
        request: Request,
        operation: str,
        values: Mapping[str, Any],
        effect: Callable[[Trouble], Answer],
        *,
        key: str | None,
        wished: Plan = UNTROUBLED,
    ) -> Response:
        """Answers a repeated key with its first answer; else meets its trouble, and has its effect once."""
        scope = f"{request.url.path} {key}" if key is not None else None
        fingerprint = hashlib.sha256(orjson.dumps(values, option=orjson.OPT_SORT_KEYS)).hexdigest()
        if scope and (stored := self._stored(scope, fingerprint)):
            return stored
        plan = self.chance.plan(operation, wished)
        await asyncio.sleep(plan.delay_ms / 1000)
        if plan.trouble is Trouble.ERROR:
            raise ApiError(500, "internal", "something went wrong here")
        # Another request with this key may have been quicker through its delay.
        if scope and (stored := self._stored(scope, fingerprint)):
            return stored
        answer, event_ids = self._settle(scope, fingerprint, plan.trouble, effect)
        log.info("%s %s %d", operation, request.url.path, answer.status)
        await self._trouble_after(plan.trouble, request, event_ids)
        return json_response(answer.body, answer.status)

    def tell(self, events: Sequence[Event], trouble: Trouble = Trouble.NONE) -> list[str]:
        """Writes events, inside the transaction of their cause."""
        faults = self.chance.faults
        copies = 2 if faults.duplicate_webhooks or trouble is Trouble.DUPLICATE_WEBHOOK else 1
        ids = []
        for event in events:
            held_back = faults.reorder_webhooks and not self.webhooks.pending(event.subject)
            delay = faults.webhook_delay_ms / 1000 + (OVERTAKE_WITHIN if held_back else 0)
            ids.append(self.webhooks.add(event.kind, event.subject, event.data, copies=copies, delay=delay))
        return ids

    def routes(self) -> list[Route]:
        """What every simulator offers beside its own API."""
        return [
            Route("/v1/faults", self._get_faults, methods=["GET"]),
            Route("/v1/faults", self._set_faults, methods=["PUT"]),
            Route("/v1/events", self._list_events, methods=["GET"]),
        ]

    @asynccontextmanager
    async def open(self, *works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """Delivers webhooks, and does these other works, while the simulator serves."""
        tasks = [asyncio.create_task(work) for work in (self.webhooks.deliver(), *works)]
        for task in tasks:
            task.add_done_callback(_log_failure)
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.journal.close()

    def page(self, request: Request, sql: str) -> Response:
        """A page of a list in order of its `sequence`: ?after= the last one seen, ?limit= at most 1000."""
        try:
            query = Fields({name: int(value) for name, value in request.query_params.items()})
        except ValueError as error:
            raise ApiError(400, "invalid_field", "after and limit are numbers", param="after") from error
        after = query.integer("after", 0, 2**63 - 1, default=0)
        limit = query.integer("limit", 1, 1000, default=1000)
        query.end()
        rows = self.journal.rows(f"{sql} ORDER BY sequence LIMIT :limit", after=after, limit=limit + 1)
        return json_response({"data": [dict(row) for row in rows[:limit]], "has_more": len(rows) > limit})

    def _stored(self, scope: str, fingerprint: str) -> Response | None:
        stored = self.journal.row("SELECT * FROM answers WHERE scope = :scope", scope=scope)
        if stored is None:
            return None
        if stored["fingerprint"] != fingerprint:
            raise ApiError(422, "idempotency_key_reused", "this key came before with another body")
        return Response(
            stored["body"],
            stored["status"],
            media_type="application/json",
            headers={"idempotent-replayed": "true"},
        )

    def _settle(
        self, scope: str | None, fingerprint: str, trouble: Trouble, effect: Callable[[Trouble], Answer]
    ) -> tuple[Answer, list[str]]:
        """The effect, its events and the answer, even of a refusal, are written in one transaction."""
        with self.journal.transaction():
            try:
                answer = effect(trouble)
            except ApiError as refusal:
                answer = Answer(refusal.status, refusal.body())
            event_ids = self.tell(answer.events, trouble)
            if scope:
                self.journal.execute(
                    "INSERT INTO answers VALUES (:scope, :fingerprint, :status, :body)",
                    scope=scope,
                    fingerprint=fingerprint,
                    status=answer.status,
                    body=orjson.dumps(answer.body),
                )
        return answer, event_ids

    async def _trouble_after(self, trouble: Trouble, request: Request, event_ids: Sequence[str]) -> None:
        match trouble:
            case Trouble.ERROR_AFTER:
                raise ApiError(500, "internal", "something went wrong here")
            case Trouble.SILENCE_AFTER:
                await _silence(request)
            case Trouble.WEBHOOK_FIRST:
                for event_id in event_ids:
                    await self.webhooks.attempted(event_id, WEBHOOK_FIRST_WITHIN)

    async def _get_faults(self, _: Request) -> Response:
        return json_response(self.chance.as_json())

    async def _set_faults(self, request: Request) -> Response:
        self.chance.set(Faults.from_json(await read_object(request)))
        return json_response(self.chance.as_json())

    async def _list_events(self, request: Request) -> Response:
        return self.page(
            request,
            "SELECT sequence, id, type, subject, create_time, attempts, deliveries_left FROM events"
            " WHERE sequence > :after",
        )


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.critical("work in the background has ended", exc_info=error)


async def _silence(request: Request) -> None:
    """Says nothing until the client hangs up, or so long that no client waits for it."""
    with suppress(TimeoutError):
        async with asyncio.timeout(SILENCE):
            while (await request.receive())["type"] != "http.disconnect":
                pass
