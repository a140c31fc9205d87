"""A courier as a process: `python -m mesh.simulators.courier`.

docs/simulators.md describes its API and its faults.
"""

import asyncio
from contextlib import AbstractAsyncContextManager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mesh.simulators import consignments, serving
from mesh.simulators.consignments import Consignment, Status
from mesh.simulators.engine import Event, Reply, SimulatorCore
from mesh.simulators.errors import ApiError
from mesh.simulators.faults import Fault, FaultInjector, Vocabulary
from mesh.simulators.fields import IDENTIFIER, Fields
from mesh.simulators.serving import Settings, json_response, read_object
from mesh.simulators.store import timestamp

MAX_WEIGHT = 1_000_000
UNSERVED_POSTAL_CODE = "00000"
POLL_SECONDS = 0.25

VOCABULARY = Vocabulary(
    operations=("create", "cancel", "advance"),
    faults={
        "ok": Fault.NONE,
        "declined": Fault.DECLINED,
        "500": Fault.ERROR,
        "500_then_done": Fault.ERROR_AFTER,
        "timeout_then_done": Fault.NO_REPLY_AFTER,
        "webhook_first": Fault.WEBHOOK_FIRST,
        "duplicate_webhook": Fault.DUPLICATE_WEBHOOK,
    },
)


class Courier:
    """The courier's API."""

    def __init__(self, settings: Settings) -> None:
        self.core = SimulatorCore(settings, consignments.SCHEMA, FaultInjector(VOCABULARY, declinable="create"))
        self.store = self.core.store

    def routes(self) -> list[Route]:
        """Return every route of the API."""
        return [
            Route("/v1/consignments", self.create, methods=["POST"]),
            Route("/v1/consignments", self.list_consignments, methods=["GET"]),
            Route("/v1/consignments/{id}", self.get_consignment, methods=["GET"]),
            Route("/v1/consignments/{id}/cancel", self.cancel, methods=["POST"]),
            Route("/v1/consignments/{id}/advance", self.advance, methods=["POST"]),
            Route("/v1/ledger", self.ledger, methods=["GET"]),
            *self.core.routes(),
        ]

    def open(self) -> AbstractAsyncContextManager[None]:
        """Deliver webhooks and move consignments while the block runs."""
        return self.core.open(self._auto_advance())

    async def create(self, request: Request) -> Response:
        """Create a consignment; the reference is the idempotency key."""
        values = await read_object(request)
        fields = Fields(values)
        reference = fields.text("reference", IDENTIFIER)
        weight = fields.integer("weight_grams", 1, MAX_WEIGHT)
        postal_code = _read_address(fields.object("address"))
        fields.end()

        def effect(fault: Fault) -> Reply:
            if fault is Fault.DECLINED:
                raise ApiError(422, "consignment_refused", "the courier does not accept this consignment")
            if postal_code == UNSERVED_POSTAL_CODE:
                raise ApiError(
                    422, "address_not_served", "the courier does not deliver there", param="address.postal_code"
                )
            return self._save([consignments.new(reference=reference, weight_grams=weight)], status=201)

        return await self.core.perform(request, "create", values, effect, key=reference)

    async def cancel(self, request: Request) -> Response:
        """Cancel a consignment that was not picked up."""
        Fields(await read_object(request)).end()
        return await self._advance_to(request, "cancel", Status.CANCELLED)

    async def advance(self, request: Request) -> Response:
        """Move a consignment to a status, or to the next one."""
        fields = Fields(await read_object(request))
        to = Status(fields.text("to", "|".join(Status))) if fields.has("to") else None
        fields.end()
        return await self._advance_to(request, "advance", to)

    async def get_consignment(self, request: Request) -> Response:
        """Return one consignment."""
        return json_response(consignments.as_json(self.store, self._get(request)))

    async def list_consignments(self, request: Request) -> Response:
        """Return the consignment with a reference, as a list."""
        query = Fields(request.query_params)
        found = consignments.find(self.store, reference=query.text("reference", IDENTIFIER))
        query.end()
        return json_response({"data": [consignments.as_json(self.store, found)] if found else []})

    async def ledger(self, request: Request) -> Response:
        """Return a page of all movements."""
        return self.core.page(request, consignments.LEDGER)

    async def _advance_to(self, request: Request, operation: str, to: Status | None) -> Response:
        """Move the consignment; without effect when it is already in that status."""
        self._get(request)  # an unknown consignment is a 404 before any fault

        def effect(fault: Fault) -> Reply:
            consignment = self._get(request)
            if fault is Fault.DECLINED:
                raise ApiError(409, "move_not_possible", f"the consignment is {consignment.status}", param="to")
            if consignment.status is to:
                return Reply(200, consignments.as_json(self.store, consignment))
            return self._save(_transitions(consignment, to))

        return await self.core.perform(request, operation, {}, effect, key=None)

    async def _auto_advance(self) -> None:
        while True:
            interval = self.core.injector.config.auto_advance_ms / 1000
            await asyncio.sleep(min(interval / 4, POLL_SECONDS) if interval else POLL_SECONDS)
            if interval:
                self._advance_all(moved_before=timestamp(seconds_ago=interval))

    def _advance_all(self, *, moved_before: str) -> None:
        with self.store.transaction():
            for consignment in consignments.in_transit(self.store, moved_before=moved_before):
                self.core.enqueue_webhooks(self._save(_transitions(consignment, to=None)).events)

    def _save(self, states: list[Consignment], *, status: int = 200) -> Reply:
        """Write each of a consignment's new states, with an event for each."""
        events = []
        for state in states:
            consignments.save(self.store, state)
            document = consignments.as_json(self.store, state)
            events.append(Event("consignment.status_changed", state.id, document))
        return Reply(status, events[-1].data, events)

    def _get(self, request: Request) -> Consignment:
        consignment = consignments.find(self.store, consignment_id=request.path_params["id"])
        if consignment is None:
            raise ApiError(404, "consignment_not_found", "there is no such consignment", param="id")
        return consignment


def _transitions(consignment: Consignment, to: Status | None) -> list[Consignment]:
    states = []
    for step in consignments.transitions(consignment.status, to):
        consignment = consignments.transition_to(consignment, step)
        states.append(consignment)
    return states


def _read_address(address: Fields) -> str:
    """Validate an address and return its postal code; the rest is not stored."""
    for name in ("recipient", "line1", "city"):
        address.text(name)
    address.optional_text("line2")
    address.text("country", r"[A-Z]{2}")
    postal_code = address.text("postal_code", r"[A-Za-z0-9 -]{2,12}")
    address.end()
    return postal_code


def make_app(settings: Settings) -> Starlette:
    """Return the application."""
    courier = Courier(settings)
    return serving.application(courier.routes(), settings.api_key, courier.open)


if __name__ == "__main__":
    serving.run(make_app)
