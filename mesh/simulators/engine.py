"""The engine of a simulator: performs each change once per idempotency key, with the requested fault."""

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
from mesh.simulators.faults import NO_FAULT, Fault, FaultConfig, FaultInjector, Plan
from mesh.simulators.fields import Fields
from mesh.simulators.serving import Settings, json_response, read_object
from mesh.simulators.store import SqliteStore
from mesh.simulators.webhooks import Webhooks

SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    scope       TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    status      INTEGER NOT NULL,
    body        BLOB NOT NULL
);
"""

NO_REPLY_SECONDS = 60.0
WEBHOOK_FIRST_SECONDS = 5.0
# How long an event is delayed so that a later one of its subject arrives first.
REORDER_SECONDS = 2.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """An event to send as a webhook."""

    kind: str
    subject: str
    data: Any


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply to a request, and the events that it causes."""

    status: int
    body: Any
    events: Sequence[Event] = ()


class SimulatorCore:
    """The store, the faults and the webhooks of one simulator."""

    def __init__(self, settings: Settings, schema: str, injector: FaultInjector) -> None:
        self.store = SqliteStore(settings.state_file, SCHEMA, webhooks.SCHEMA, schema)
        self.webhooks = Webhooks(self.store, settings.webhook_url, settings.webhook_secrets)
        self.injector = injector
        self.injector.set(settings.faults)

    async def perform(
        self,
        request: Request,
        operation: str,
        values: Mapping[str, Any],
        effect: Callable[[Fault], Reply],
        *,
        key: str | None,
        requested_fault: Plan = NO_FAULT,
    ) -> Response:
        """Return the stored reply for a known key; otherwise apply the planned fault, and run `effect` once."""
        self.check_up()
        scope = f"{request.url.path} {key}" if key is not None else None
        fingerprint = hashlib.sha256(orjson.dumps(values, option=orjson.OPT_SORT_KEYS)).hexdigest()
        if scope and (stored := self._stored(scope, fingerprint)):
            return stored
        plan = self.injector.plan(operation, requested_fault)
        await asyncio.sleep(plan.delay_ms / 1000)
        if plan.fault is Fault.ERROR:
            raise ApiError(500, "internal", "something went wrong here")
        # Another request with this key may have ended during the delay.
        if scope and (stored := self._stored(scope, fingerprint)):
            return stored
        reply, event_ids = self._settle(scope, fingerprint, plan.fault, effect)
        log.info("%s %s %d", operation, request.url.path, reply.status)
        await self._apply_fault_after(plan.fault, request, event_ids)
        return json_response(reply.body, reply.status)

    def check_up(self) -> None:
        """Raise ApiError during an outage."""
        if self.injector.config.outage:
            raise ApiError(500, "internal", "something went wrong here")

    def enqueue_webhooks(self, events: Sequence[Event], fault: Fault = Fault.NONE) -> list[str]:
        """Write events for delivery, in the caller's transaction; return their ids."""
        faults = self.injector.config
        copies = 2 if faults.duplicate_webhooks or fault is Fault.DUPLICATE_WEBHOOK else 1
        ids = []
        for event in events:
            held_back = faults.reorder_webhooks and not self.webhooks.pending(event.subject)
            delay = faults.webhook_delay_ms / 1000 + (REORDER_SECONDS if held_back else 0)
            ids.append(self.webhooks.add(event.kind, event.subject, event.data, copies=copies, delay=delay))
        return ids

    def routes(self) -> list[Route]:
        """Return the routes that every simulator has."""
        return [
            Route("/v1/faults", self._get_faults, methods=["GET"]),
            Route("/v1/faults", self._set_faults, methods=["PUT"]),
            Route("/v1/events", self._list_events, methods=["GET"]),
        ]

    @asynccontextmanager
    async def open(self, *works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """Deliver webhooks and run `works` while the block runs."""
        tasks = [asyncio.create_task(work) for work in (self.webhooks.deliver(), *works)]
        for task in tasks:
            task.add_done_callback(_log_failure)
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.store.close()

    def page(self, request: Request, sql: str) -> Response:
        """Return a page of a list, ordered by `sequence`: `after` is the last one seen, `limit` at most 1000."""
        try:
            query = Fields({name: int(value) for name, value in request.query_params.items()})
        except ValueError as error:
            raise ApiError(400, "invalid_field", "after and limit must be integers", param="after") from error
        after = query.integer("after", 0, 2**63 - 1, default=0)
        limit = query.integer("limit", 1, 1000, default=1000)
        query.end()
        rows = self.store.rows(f"{sql} ORDER BY sequence LIMIT :limit", after=after, limit=limit + 1)
        return json_response({"data": [dict(row) for row in rows[:limit]], "has_more": len(rows) > limit})

    def _stored(self, scope: str, fingerprint: str) -> Response | None:
        stored = self.store.row("SELECT * FROM answers WHERE scope = :scope", scope=scope)
        if stored is None:
            return None
        if stored["fingerprint"] != fingerprint:
            raise ApiError(422, "idempotency_key_reused", "this key was used with another body")
        return Response(
            stored["body"],
            stored["status"],
            media_type="application/json",
            headers={"idempotent-replayed": "true"},
        )

    def _settle(
        self, scope: str | None, fingerprint: str, fault: Fault, effect: Callable[[Fault], Reply]
    ) -> tuple[Reply, list[str]]:
        """Run `effect`; write it, its events and the reply in one transaction. An error is a reply too."""
        with self.store.transaction():
            try:
                reply = effect(fault)
            except ApiError as error:
                reply = Reply(error.status, error.body())
            event_ids = self.enqueue_webhooks(reply.events, fault)
            if scope:
                self.store.execute(
                    "INSERT INTO answers VALUES (:scope, :fingerprint, :status, :body)",
                    scope=scope,
                    fingerprint=fingerprint,
                    status=reply.status,
                    body=orjson.dumps(reply.body),
                )
        return reply, event_ids

    async def _apply_fault_after(self, fault: Fault, request: Request, event_ids: Sequence[str]) -> None:
        match fault:
            case Fault.ERROR_AFTER:
                raise ApiError(500, "internal", "something went wrong here")
            case Fault.NO_REPLY_AFTER:
                await _hold_reply(request)
            case Fault.WEBHOOK_FIRST:
                for event_id in event_ids:
                    await self.webhooks.wait_for_first_attempt(event_id, WEBHOOK_FIRST_SECONDS)

    async def _get_faults(self, _: Request) -> Response:
        return json_response(self.injector.as_json())

    async def _set_faults(self, request: Request) -> Response:
        self.injector.set(FaultConfig.from_json(await read_object(request)))
        return json_response(self.injector.as_json())

    async def _list_events(self, request: Request) -> Response:
        return self.page(
            request,
            "SELECT sequence, id, type, subject, create_time, attempts, deliveries_left FROM events"
            " WHERE sequence > :after",
        )


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.critical("background work failed", exc_info=error)


async def _hold_reply(request: Request) -> None:
    """Return when the client disconnects, or after a time longer than every client timeout."""
    with suppress(TimeoutError):
        async with asyncio.timeout(NO_REPLY_SECONDS):
            while (await request.receive())["type"] != "http.disconnect":
                pass
