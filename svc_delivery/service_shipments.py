"""The RPCs of shipments: staff ships orders, the courier tells where they are, customers watch."""

import logging
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.empty_pb2 import Empty

from chassis import Context, Database, Transaction, current_user, idempotent, stored_reply
from chassis.external import webhooks
from chassis.types.pagination import page_size, page_token, time_position
from shop.chassis.v1 import chassis_errors
from shop.delivery.v1 import shipment_service_pb2 as pb
from shop.delivery.v1.delivery_errors import ShipmentNotFound
from shop.delivery.v1.shipment_service_pb2_grpc import ShipmentServiceServicer
from shop.order.v1.order_service_pb2 import Order
from svc_delivery import domain_shipment, messages, store, store_shipment
from svc_delivery.courier import Consignment, verify_webhook
from svc_delivery.dispatch import COURIER, Dispatcher, record
from svc_delivery.domain_shipment import Shipment, State, shipment_id

log = logging.getLogger(__name__)

#: Who sees the parcels of all customers.
_SEE_ALL = frozenset({"staff", "admin", "courier"})
_AFTER_ALL = (datetime(9999, 1, 1, tzinfo=UTC), "")


class ShipmentService(ShipmentServiceServicer):
    """Ships orders by the courier and tracks their parcels."""

    def __init__(self, db: Database, dispatcher: Dispatcher, webhook_secrets: Sequence[str]) -> None:
        """`dispatcher` deals with the courier, who signs webhooks with one of the secrets."""
        self.db = db
        self.dispatcher = dispatcher
        self.webhook_secrets = webhook_secrets

    async def CreateShipment(self, request: pb.CreateShipmentRequest, context: Context) -> pb.Shipment:
        repeated = await stored_reply(self.db, request, pb.Shipment) is not None
        if not repeated:
            order = await self.dispatcher.begin(request.order_id, current_user().id)
            await idempotent(self.db, request, pb.Shipment, lambda tx: self._create(tx, order))
        key = shipment_id(request.order_id)
        async with self.db.connection() as tx:
            shipment = await store_shipment.read_shipment(tx, key)
        await self.dispatcher.hand_over(shipment, attempt=2 if repeated else 1)
        async with self.db.connection() as tx:
            return await _told(tx, await store_shipment.read_shipment(tx, key))

    async def GetShipment(self, request: pb.GetShipmentRequest, context: Context) -> pb.Shipment:
        async with self.db.connection() as tx:
            return await _told(tx, _visible(await store_shipment.read_shipment(tx, request.shipment_id)))

    async def ListShipments(self, request: pb.ListShipmentsRequest, context: Context) -> pb.ListShipmentsResponse:
        user, size = current_user(), page_size(request.page_size)
        async with self.db.connection() as tx:
            shipments = await store_shipment.list_shipments(
                tx,
                user_id="" if user.roles & _SEE_ALL else user.id,
                order_id=request.order_id,
                state=messages.state_from_proto(request.state),
                before=time_position(request.page_token, _AFTER_ALL),
                limit=size + 1,
            )
            updates = await store_shipment.read_updates(tx, shipments[:size])
        last = shipments[size - 1] if len(shipments) > size else None
        return pb.ListShipmentsResponse(
            shipments=[messages.shipment_to_proto(one, updates[one.id]) for one in shipments[:size]],
            next_page_token=page_token(last.create_time.isoformat(), last.id) if last else "",
        )

    async def UpdateShipmentStatus(self, request: pb.UpdateShipmentStatusRequest, context: Context) -> pb.Shipment:
        async def change(tx: Transaction) -> pb.Shipment:
            before = await store_shipment.lock_shipment(tx, request.shipment_id)
            to = State[messages.state_from_proto(request.state)]
            after = domain_shipment.move(before, to, request.note, await store.read_now(tx))
            await record(tx, before, [after], current_user().id)
            return await _told(tx, after)

        return await idempotent(self.db, request, pb.Shipment, change)

    async def WatchShipment(
        self, request: pb.WatchShipmentRequest, context: Context
    ) -> AsyncIterator[pb.WatchShipmentResponse]:
        seen = request.resume_token
        async for _ in self.db.change_feed.subscribe([request.shipment_id]):
            async with self.db.connection() as tx:
                shipment = _visible(await store_shipment.read_shipment(tx, request.shipment_id))
                told = await _told(tx, shipment)
            if told.etag != seen:
                seen = told.etag
                yield pb.WatchShipmentResponse(shipment=told, resume_token=seen)
            if not domain_shipment.MOVES[shipment.state]:
                return

    async def ReceiveCourierEvent(self, request: HttpBody, context: Context) -> Empty:
        headers = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        try:
            # Before anything is asked of the database, which is nothing for strangers to keep busy.
            webhook = verify_webhook(headers, request.data, self.webhook_secrets, datetime.now(UTC))
        except webhooks.WebhookRejected as rejected:
            log.warning("webhook rejected", extra={"reason": rejected.reason})
            malformed = rejected.reason == "body_malformed"
            raise (chassis_errors.WebhookMalformed if malformed else chassis_errors.WebhookRejected) from None
        async with self.db.transaction() as tx:
            if await store_shipment.claim_webhook(tx, webhook.id):
                await self._on_notify(tx, webhook.data)
        return Empty()

    async def _create(self, tx: Transaction, order: Order) -> pb.Shipment:
        await self.dispatcher.create(tx, order, current_user().id)
        return await _told(tx, await store_shipment.read_shipment(tx, shipment_id(order.order_id)))

    async def _on_notify(self, tx: Transaction, consignment: Consignment) -> None:
        try:
            before = await store_shipment.lock_shipment(tx, consignment.reference)
        except ShipmentNotFound:
            log.warning("parcel of nobody", extra={"reference": consignment.reference})
            return
        report = messages.courier_report(consignment)
        if stages := domain_shipment.hear(before, report, await store.read_now(tx)):
            await record(tx, before, stages, COURIER)
            await store_shipment.delete_dispatch(tx, before.order_id)


async def _told(tx: Transaction, shipment: Shipment) -> pb.Shipment:
    """Return a shipment as it is told, with its history."""
    updates = await store_shipment.read_updates(tx, [shipment])
    return messages.shipment_to_proto(shipment, updates[shipment.id])


def _visible(shipment: Shipment) -> Shipment:
    """Return the shipment if the user may see it; to others it does not exist."""
    user = current_user()
    if shipment.user_id != user.id and not user.roles & _SEE_ALL:
        raise ShipmentNotFound(shipment_id=shipment.id)
    return shipment
