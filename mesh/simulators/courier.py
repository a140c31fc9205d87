"""A courier as a process: `python -m mesh.simulators.courier`.

Its API, and how to make it slow, careless or quick, is told in docs/simulators.md.
"""

import asyncio
from contextlib import AbstractAsyncContextManager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mesh.simulators import consignments, serving
from mesh.simulators.consignments import Consignment, Status
from mesh.simulators.engine import Answer, Desk, Event
from mesh.simulators.errors import ApiError
from mesh.simulators.faults import Chance, Trouble, Vocabulary
from mesh.simulators.fields import IDENTIFIER, Fields
from mesh.simulators.serving import Settings, json_response, read_object
from mesh.simulators.store import timestamp

WEIGHT_AT_MOST = 1_000_000
NOWHERE = "00000"  # a postal code to which no courier goes
LOOK_EVERY = 0.25

VOCABULARY = Vocabulary(
    operations=("create", "cancel", "advance"),
    troubles={
        "ok": Trouble.NONE,
        "declined": Trouble.DECLINED,
        "500": Trouble.ERROR,
        "500_then_done": Trouble.ERROR_AFTER,
        "timeout_then_done": Trouble.SILENCE_AFTER,
        "webhook_first": Trouble.WEBHOOK_FIRST,
        "duplicate_webhook": Trouble.DUPLICATE_WEBHOOK,
    },
)


class Courier:
    def __init__(self, settings: Settings) -> None:
        self.desk = Desk(settings, consignments.SCHEMA, Chance(VOCABULARY, declinable="create"))
        self.journal = self.desk.journal

    def routes(self) -> list[Route]:
        return [
            Route("/v1/consignments", self.create, methods=["POST"]),
            Route("/v1/consignments", self.list_consignments, methods=["GET"]),
            Route("/v1/consignments/{id}", self.get_consignment, methods=["GET"]),
            Route("/v1/consignments/{id}/cancel", self.cancel, methods=["POST"]),
            Route("/v1/consignments/{id}/advance", self.advance, methods=["POST"]),
            Route("/v1/ledger", self.ledger, methods=["GET"]),
            *self.desk.routes(),
        ]

    def open(self) -> AbstractAsyncContextManager[None]:
        return self.desk.open(self._advance_by_itself())

    async def create(self, request: Request) -> Response:
        """Idempotent by its reference: the same one is answered alike, and is refused with another body."""
        values = await read_object(request)
        fields = Fields(values)
        reference = fields.text("reference", IDENTIFIER)
        weight = fields.integer("weight_grams", 1, WEIGHT_AT_MOST)
        postal_code = _read_address(fields.object("address"))
        fields.end()

        def effect(trouble: Trouble) -> Answer:
            if trouble is Trouble.DECLINED:
                raise ApiError(422, "consignment_refused", "the courier does not take this consignment")
            if postal_code == NOWHERE:
                raise ApiError(422, "address_not_served", "no courier goes there", param="address.postal_code")
            return self._save([consignments.new(reference=reference, weight_grams=weight)], status=201)

        return await self.desk.perform(request, "create", values, effect, key=reference)

    async def cancel(self, request: Request) -> Response:
        Fields(await read_object(request)).end()
        return await self._advance_to(request, "cancel", Status.CANCELLED)

    async def advance(self, request: Request) -> Response:
        fields = Fields(await read_object(request))
        to = Status(fields.text("to", "|".join(Status))) if fields.has("to") else None
        fields.end()
        return await self._advance_to(request, "advance", to)

    async def get_consignment(self, request: Request) -> Response:
        return json_response(consignments.as_json(self.journal, self._get(request)))

    async def list_consignments(self, request: Request) -> Response:
        query = Fields(request.query_params)
        found = consignments.find(self.journal, reference=query.text("reference", IDENTIFIER))
        query.end()
        return json_response({"data": [consignments.as_json(self.journal, found)] if found else []})

    async def ledger(self, request: Request) -> Response:
        return self.desk.page(request, consignments.LEDGER)

    async def _advance_to(self, request: Request, operation: str, to: Status | None) -> Response:
        """Where the consignment already is where it shall be, nothing happens and that is fine."""
        self._get(request)  # what is not there meets no trouble and reaches no log

        def effect(trouble: Trouble) -> Answer:
            consignment = self._get(request)
            if trouble is Trouble.DECLINED:
                raise ApiError(409, "move_not_possible", f"the consignment is {consignment.status}", param="to")
            if consignment.status is to:
                return Answer(200, consignments.as_json(self.journal, consignment))
            return self._save(_moves(consignment, to))

        return await self.desk.perform(request, operation, {}, effect, key=None)

    async def _advance_by_itself(self) -> None:
        while True:
            interval = self.desk.chance.faults.auto_advance_ms / 1000
            await asyncio.sleep(min(interval / 4, LOOK_EVERY) if interval else LOOK_EVERY)
            if interval:
                self._advance_all(moved_before=timestamp(seconds_ago=interval))

    def _advance_all(self, *, moved_before: str) -> None:
        with self.journal.transaction():
            for consignment in consignments.on_the_road(self.journal, moved_before=moved_before):
                self.desk.tell(self._save(_moves(consignment, to=None)).events)

    def _save(self, states: list[Consignment], *, status: int = 200) -> Answer:
        """Each state of these that one consignment goes through, with an event of its own."""
        events = []
        for state in states:
            consignments.save(self.journal, state)
            told = consignments.as_json(self.journal, state)
            events.append(Event("consignment.status_changed", state.id, told))
        return Answer(status, events[-1].data, events)

    def _get(self, request: Request) -> Consignment:
        consignment = consignments.find(self.journal, consignment_id=request.path_params["id"])
        if consignment is None:
            raise ApiError(404, "consignment_not_found", "there is no such consignment", param="id")
        return consignment


def _moves(consignment: Consignment, to: Status | None) -> list[Consignment]:
    states = []
    for step in consignments.steps(consignment.status, to):
        consignment = consignments.move(consignment, step)
        states.append(consignment)
    return states


def _read_address(address: Fields) -> str:
    """Checks an address as a courier would, and returns the postal code; nobody keeps the rest."""
    for name in ("recipient", "line1", "city"):
        address.text(name)
    address.optional_text("line2")
    address.text("country", r"[A-Z]{2}")
    postal_code = address.text("postal_code", r"[A-Za-z0-9 -]{2,12}")
    address.end()
    return postal_code


def make_app(settings: Settings) -> Starlette:
    courier = Courier(settings)
    return serving.application(courier.routes(), settings.api_key, courier.open)


if __name__ == "__main__":
    serving.run(make_app)
