"""Hands parcels to the courier: an order that staff wants shipped is noted first, and gets there whatever breaks.

order tied to its shipment (svc_order) -> shipment CREATED -> courier has it: LABELLED, or does not take it: FAILED

Each arrow is a question to somebody outside, asked with nothing locked and under a key of its own, so that it can be
asked again by whoever finds the note.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from chassis import Database, Transaction, outbox
from chassis.external.api import CallResult, Ok, Refused, Unknown
from shop.delivery.v1.delivery_errors import ShipmentNotFound
from shop.order.v1.order_errors import OrderNotFound, OrderNotShippable
from shop.order.v1.order_service_pb2 import Order, StartFulfillmentRequest
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub
from svc_delivery import domain_shipment, messages, store, store_shipment
from svc_delivery.courier import Consignment, Courier
from svc_delivery.domain_shipment import Shipment, State, shipment_id

log = logging.getLogger(__name__)

#: Longer than one try can take, so that nobody else begins one meanwhile.
_LEASE = timedelta(seconds=20)
_FIRST_DELAY, _LONGEST_DELAY = timedelta(seconds=1), timedelta(minutes=1)
_AT_ONCE = 20
_NOT_TAKEN = "The courier does not take this parcel."
#: Who moves a shipment when nobody of the shop does.
COURIER = "courier"

#: Decides what becomes of a shipment: its stages from the next one on.
Change = Callable[[Shipment, datetime], Sequence[Shipment]]


class Dispatcher:
    """Brings shipments into being and to the courier."""

    def __init__(self, db: Database, orders: OrderServiceStub, courier: Courier) -> None:
        """`orders` says whether and where an order may go; `courier` carries it."""
        self._db = db
        self._orders = orders
        self._courier = courier

    async def begin(self, order_id: str, actor: str) -> Order:
        """Note that `actor` wants an order shipped, and tie it to its shipment, after which it cannot be cancelled.

        Raises OrderNotFound or OrderNotShippable; after anything else it is tried again until it is known.
        """
        async with self._db.transaction() as tx:
            await store_shipment.claim_dispatch(tx, order_id, actor, _LEASE)
        key = shipment_id(order_id)
        try:
            return await self._orders.StartFulfillment(StartFulfillmentRequest(order_id=order_id, shipment_id=key))
        except (OrderNotFound, OrderNotShippable):
            await self._forget(order_id)
            raise

    async def create(self, tx: Transaction, order: Order, actor: str) -> None:
        """Write the shipment of an order that was tied to it, unless it exists."""
        shipment = messages.shipment_from_order(order, await store.read_now(tx))
        if await store_shipment.insert_shipment(tx, shipment, actor):
            # Another try that was refused before the order became shippable may have deleted the note.
            await store_shipment.claim_dispatch(tx, order.order_id, actor, _LEASE)
            await outbox.add(tx, messages.shipment_created(shipment))

    async def hand_over(self, shipment: Shipment, attempt: int) -> None:
        """Have the courier take a shipment that it is not known to have; returns knowing it or not."""
        if shipment.consignment_id or shipment.state is not State.CREATED:
            await self._forget(shipment.order_id)
            return
        match await self._ask(shipment, again=attempt > 1):
            case Ok(consignment):
                report = messages.courier_report(consignment)
                await self._settle(shipment, lambda locked, now: domain_shipment.hear(locked, report, now))
            case Refused(code):
                log.warning("courier refuses", extra={"shipment": shipment.id, "code": code})
                await self._settle(shipment, lambda locked, now: [domain_shipment.refuse(locked, _NOT_TAKEN, now)])
            case Unknown(cause):
                log.warning("courier does not answer", extra={"shipment": shipment.id, "cause": cause})
                delay = min(_FIRST_DELAY * 2 ** min(attempt - 1, 10), _LONGEST_DELAY)
                async with self._db.transaction() as tx:
                    await store_shipment.postpone_dispatch(tx, shipment.order_id, delay)

    async def take_up(self) -> bool:
        """Go on with some of what this process or another left undone; returns whether there may be more."""
        async with self._db.transaction() as tx:
            due = await store_shipment.claim_due_dispatches(tx, _LEASE, _AT_ONCE)
        await asyncio.gather(*(self._resume(row["order_id"], row["actor"], row["attempts"]) for row in due))
        return len(due) == _AT_ONCE

    async def _resume(self, order_id: str, actor: str, attempt: int) -> None:
        try:
            await self.hand_over(await self._made(order_id, actor), attempt)
        except (OrderNotFound, OrderNotShippable) as refusal:
            log.warning("order cannot be shipped", extra={"order": order_id, "reason": refusal.reason})
        except Exception:
            log.exception("parcel waits", extra={"order": order_id})

    async def _made(self, order_id: str, actor: str) -> Shipment:
        """Return the order's shipment, made now if it does not exist."""
        try:
            async with self._db.connection() as tx:
                return await store_shipment.read_shipment(tx, shipment_id(order_id))
        except ShipmentNotFound:
            order = await self.begin(order_id, actor)
        async with self._db.transaction() as tx:
            await self.create(tx, order, actor)
            return await store_shipment.read_shipment(tx, shipment_id(order_id))

    async def _ask(self, shipment: Shipment, *, again: bool) -> CallResult[Consignment]:
        if again:
            match await self._courier.find_by_reference(shipment.id):
                case Ok(consignment) if consignment is not None:
                    return Ok(consignment)
                case Refused(code):  # to be asked is nothing that a courier could refuse for good
                    return Unknown(code)
                case Unknown() as unanswered:
                    return unanswered
        return await self._courier.create(
            reference=shipment.id,
            address=messages.courier_address(shipment.shipping_address),
            weight_grams=max(1, shipment.weight_grams),
        )

    async def _settle(self, shipment: Shipment, change: Change) -> None:
        async with self._db.transaction() as tx:
            before = await store_shipment.lock_shipment(tx, shipment.id)
            await record(tx, before, change(before, await store.read_now(tx)), COURIER)
            await store_shipment.delete_dispatch(tx, shipment.order_id)

    async def _forget(self, order_id: str) -> None:
        async with self._db.transaction() as tx:
            await store_shipment.delete_dispatch(tx, order_id)


async def record(tx: Transaction, before: Shipment, stages: Sequence[Shipment], actor: str) -> None:
    """Write what `actor` made of a locked shipment, and tell of it."""
    await store_shipment.update_shipment(tx, before, stages, actor)
    await outbox.add(tx, *messages.shipment_moves(before, stages))
