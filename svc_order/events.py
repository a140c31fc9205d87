"""Applies events of shipments to orders, and resumes the sagas that wait for their parcels."""

from functools import partial

from google.protobuf.message import Message

from chassis import Handler, Transaction, outbox
from shop.delivery.v1 import delivery_events_pb2 as delivery_events
from shop.delivery.v1 import shipment_service_pb2 as delivery_pb
from svc_order import converters, store
from svc_order.domain import Order
from svc_order.domain_fulfillment import Parcel, after_parcel
from svc_order.domain_saga import Waits
from svc_order.domain_steps import Done, Step
from svc_order.returns import open_parcel_return

_PARCELS = {
    delivery_pb.SHIPMENT_STATE_PICKED_UP: Parcel.UNDER_WAY,
    delivery_pb.SHIPMENT_STATE_IN_TRANSIT: Parcel.UNDER_WAY,
    delivery_pb.SHIPMENT_STATE_OUT_FOR_DELIVERY: Parcel.UNDER_WAY,
    delivery_pb.SHIPMENT_STATE_DELIVERED: Parcel.DELIVERED,
    delivery_pb.SHIPMENT_STATE_FAILED: Parcel.FAILED,
    delivery_pb.SHIPMENT_STATE_RETURNED: Parcel.RETURNED,
    delivery_pb.SHIPMENT_STATE_CANCELLED: Parcel.CANCELLED,
}


async def on_shipment_status_changed(
    tx: Transaction, event: delivery_events.ShipmentStatusChanged, *, waits: Waits
) -> None:
    """Follow the parcel; its departure resumes the saga, which captures the payment, and its return opens one."""
    parcel = _PARCELS.get(event.to_state)
    if parcel is None:
        return
    saga, order, now = await store.lock_saga_and_order(tx, event.order_id)
    after, resumed = after_parcel(order, saga, event.shipment_id, parcel, now, waits=waits)
    if resumed is not saga:
        if saga.step is Step.CREATE_SHIPMENT and resumed.has_departed:
            await store.write_steps(tx, (saga, Done()))  # the attempt in progress no longer settles it
        await store.update_saga(tx, resumed)
    await open_parcel_return(tx, await _save(tx, order, after), now)


async def _save(tx: Transaction, before: Order, after: Order) -> Order:
    saved = await store.update_order(tx, before, after)
    await outbox.add(tx, *converters.order_changed_events(before, saved))
    return saved


def handlers(waits: Waits) -> dict[type[Message], Handler]:
    """Return the handlers of the events of shipments; an order whose shipment has ended waits for another one."""
    return {delivery_events.ShipmentStatusChanged: partial(on_shipment_status_changed, waits=waits)}
