"""The RPCs of shipments: svc_order creates them, the courier's webhooks update the shipments, customers watch them."""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.empty_pb2 import Empty

from chassis import (
    Context,
    Database,
    Transaction,
    Watch,
    current_call,
    current_time,
    current_user,
    owner_filter,
    require_owner,
    transactional,
)
from chassis.external import webhooks
from chassis.external.webhooks import Webhook
from chassis.types.pagination import END_OF_TIME, Keyset, parse_time
from chassis.work.worker import Worker
from shop.delivery.v1 import shipment_service_pb2 as pb
from shop.delivery.v1.delivery_errors import ShipmentNotFound
from shop.delivery.v1.shipment_service_pb2_grpc import ShipmentServiceServicer
from svc_delivery import converters_shipment as converters
from svc_delivery import store_dispatch, store_shipment
from svc_delivery.courier import Consignment, consignment_from_json
from svc_delivery.dispatch import COURIER, Dispatch, Result, record
from svc_delivery.domain_shipment import TRANSITIONS, DispatchJob, Shipment, State, apply_tracking_update

log = logging.getLogger(__name__)

#: The part of a caller's deadline that is kept for the reply.
_REPLY_SECONDS = 0.25
#: The roles that see and update every shipment; a courier only those that they deliver.
_STAFF = frozenset({"staff", "admin"})
_SHIPMENTS = Keyset(parse_time, str, start=(END_OF_TIME, ""))


class ShipmentService(ShipmentServiceServicer):
    """Submits shipments to the courier and tracks their parcels."""

    def __init__(
        self, db: Database, dispatch: Dispatch, worker: Worker[DispatchJob, Result], webhook_secrets: Sequence[str]
    ) -> None:
        """`worker` runs the jobs of `dispatch`; the courier signs its webhooks with one of the secrets."""
        self.db = db
        self.dispatch = dispatch
        self.worker = worker
        self.webhook_secrets = webhook_secrets
        self.shipments: Watch[pb.Shipment] = Watch(db.change_feed, self._read_shipments)

    async def CreateShipment(self, request: pb.CreateShipmentRequest, context: Context) -> pb.Shipment:
        return await self._dispatched(await self._create_shipment(request, context))

    async def CancelShipment(self, request: pb.CancelShipmentRequest, context: Context) -> pb.Shipment:
        return await self._dispatched(await self._cancel_shipment(request, context))

    async def GetShipment(self, request: pb.GetShipmentRequest, context: Context) -> pb.Shipment:
        shipment = await self._read_shipment(request.shipment_id)
        _require_access(shipment)
        return shipment

    async def ListShipments(self, request: pb.ListShipmentsRequest, context: Context) -> pb.ListShipmentsResponse:
        page = _SHIPMENTS.page(request)
        async with self.db.connection() as tx:
            shipments = await store_shipment.list_shipments(
                tx,
                user_id=owner_filter(),
                order_id=request.order_id,
                state=converters.state_from_proto(request.state),
                before=page.after,
                limit=page.limit,
            )
            shipments, next_page_token = page.cut(shipments, lambda shipment: (shipment.create_time, shipment.id))
            return pb.ListShipmentsResponse(
                shipments=await _with_histories(tx, shipments), next_page_token=next_page_token
            )

    @transactional
    async def AssignShipment(self, request: pb.AssignShipmentRequest, tx: Transaction) -> pb.Shipment:
        before = await store_shipment.lock_shipment(tx, request.shipment_id)
        after = replace(before, courier_id=request.courier_id)
        await record(tx, before, [after], current_user().id)
        (shipment,) = await _with_histories(tx, [after])
        return shipment

    async def UpdateShipmentStatus(self, request: pb.UpdateShipmentStatusRequest, context: Context) -> pb.Shipment:
        shipment = await self._update_status(request, context)
        return await self._dispatched(shipment) if request.state == pb.SHIPMENT_STATE_CANCELLED else shipment

    @transactional
    async def _update_status(self, request: pb.UpdateShipmentStatusRequest, tx: Transaction) -> pb.Shipment:
        before = await store_shipment.lock_shipment(tx, request.shipment_id)
        if not current_user().roles & _STAFF and before.courier_id != current_user().id:
            raise ShipmentNotFound(shipment_id=before.id)
        if request.state == pb.SHIPMENT_STATE_CANCELLED:
            return await self._request_cancellation(tx, before, current_user().id, request.note)
        to = State[converters.state_from_proto(request.state)]
        after = before.transition_to(to, request.note, await current_time(tx))
        await record(tx, before, [after], current_user().id)
        (shipment,) = await _with_histories(tx, [after])
        return shipment

    async def WatchShipment(
        self, request: pb.WatchShipmentRequest, context: Context
    ) -> AsyncIterator[pb.WatchShipmentResponse]:
        sent = request.resume_token
        async for changed in self.shipments.values([request.shipment_id]):
            if (shipment := changed.get(request.shipment_id)) is None:
                raise ShipmentNotFound(shipment_id=request.shipment_id)
            _require_access(shipment)
            if shipment.etag != sent:
                sent = shipment.etag
                yield pb.WatchShipmentResponse(shipment=shipment, resume_token=sent)
            if TRANSITIONS.is_final(State[converters.state_from_proto(shipment.state)]):
                return

    async def ReceiveCourierEvent(self, request: HttpBody, context: Context) -> Empty:
        webhook = webhooks.receive(request, context, self.webhook_secrets, read=consignment_from_json)
        return await self._apply_webhook(request, context, webhook)

    @transactional
    async def _create_shipment(self, request: pb.CreateShipmentRequest, tx: Transaction) -> pb.Shipment:
        """Insert a shipment and its job, or let the next attempt of an existing job begin now: its caller waits."""
        shipment = converters.shipment_from_request(request, await current_time(tx))
        job = await self.dispatch.create_shipment(tx, shipment, request.actor)
        if job is None:
            shipment = await store_shipment.read_shipment_of(tx, request.order_id, request.shipment_id)
            await store_dispatch.make_due(tx, request.order_id)
        self.db.on_commit(tx, lambda: self.worker.start(request.order_id, job))
        (reply,) = await _with_histories(tx, [shipment])
        return reply

    @transactional
    async def _cancel_shipment(self, request: pb.CancelShipmentRequest, tx: Transaction) -> pb.Shipment:
        before = await store_shipment.lock_shipment(tx, request.shipment_id)
        return await self._request_cancellation(tx, before, request.actor, request.reason)

    async def _request_cancellation(self, tx: Transaction, before: Shipment, actor: str, reason: str) -> pb.Shipment:
        """Request the cancellation of a locked shipment; return it as it was before."""
        job = await self.dispatch.cancel_shipment(tx, before, actor, reason)
        self.db.on_commit(tx, lambda: self.worker.start(before.order_id, job))
        (reply,) = await _with_histories(tx, [before])
        return reply

    async def _dispatched(self, shipment: pb.Shipment) -> pb.Shipment:
        """Return a shipment after the job of its order, or as far as it came while the caller waits."""
        call = current_call()
        left = call.remaining() if call else None
        with suppress(TimeoutError):  # the change is committed however long the courier takes
            async with asyncio.timeout(None if left is None else max(0.0, left - _REPLY_SECONDS)):
                await self.worker.join(shipment.order_id)
        return await self._read_shipment(shipment.shipment_id)

    @transactional
    async def _apply_webhook(self, _request: HttpBody, tx: Transaction, webhook: Webhook[Consignment]) -> Empty:
        if not await webhooks.claim(tx, COURIER, webhook):
            return Empty()
        try:
            before = await store_shipment.lock_shipment(tx, webhook.data.reference)
        except ShipmentNotFound:
            log.warning("webhook of an unknown shipment", extra={"reference": webhook.data.reference})
            return Empty()
        update = converters.tracking_update_from_consignment(webhook.data)
        if revisions := apply_tracking_update(before, update, await current_time(tx)):
            await record(tx, before, revisions, COURIER)
            if not revisions[-1].is_cancelling:
                await store_dispatch.delete_jobs_of(tx, before.order_id)
        return Empty()

    async def _read_shipment(self, shipment_id: str) -> pb.Shipment:
        shipments = await self._read_shipments([shipment_id])
        if shipment_id not in shipments:
            raise ShipmentNotFound(shipment_id=shipment_id)
        return shipments[shipment_id]

    async def _read_shipments(self, ids: Collection[str]) -> Mapping[str, pb.Shipment]:
        async with self.db.connection() as tx:
            shipments = await _with_histories(tx, await store_shipment.read_shipments(tx, ids))
        return {shipment.shipment_id: shipment for shipment in shipments}


def _require_access(shipment: pb.Shipment) -> None:
    """Raise ShipmentNotFound unless the user ordered the shipment, delivers it, or may see all."""
    delivers = bool(shipment.courier_id) and shipment.courier_id == current_user().id
    owner_id = shipment.courier_id if delivers else shipment.user_id
    require_owner(owner_id, ShipmentNotFound(shipment_id=shipment.shipment_id))


async def _with_histories(tx: Transaction, shipments: Sequence[Shipment]) -> list[pb.Shipment]:
    """Return shipments as messages, which hold their histories."""
    updates = await store_shipment.read_updates(tx, shipments)
    return [converters.shipment_to_proto(shipment, updates[shipment.id]) for shipment in shipments]
