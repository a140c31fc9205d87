"""What the orders learn from other services' events. They never drive a step but the one that waits for a parcel."""

from collections.abc import Callable
from datetime import datetime

from google.protobuf.message import Message

from chassis import Handler, Transaction, outbox
from shop.delivery.v1 import delivery_events_pb2 as delivery_events
from shop.delivery.v1 import shipment_service_pb2 as delivery_pb
from shop.payment.v1 import payment_events_pb2 as payment_events
from shop.payment.v1 import payment_service_pb2 as payment_pb
from svc_order import domain, domain_saga, messages, store
from svc_order.domain import Fulfillment, Order, Payment
from svc_order.domain_saga import Saga, SagaState, Step

_ON_ITS_WAY = frozenset(
    {
        delivery_pb.SHIPMENT_STATE_PICKED_UP,
        delivery_pb.SHIPMENT_STATE_IN_TRANSIT,
        delivery_pb.SHIPMENT_STATE_OUT_FOR_DELIVERY,
    }
)

#: Decides what an event makes of an order and its saga.
Change = Callable[[Order, Saga, datetime], tuple[Order, Saga]]


async def on_shipment_status_changed(tx: Transaction, event: delivery_events.ShipmentStatusChanged) -> None:
    """Follow the parcel; its departure sets the saga going towards the money."""

    def change(order: Order, saga: Saga, now: datetime) -> tuple[Order, Saga]:
        if event.to_state in _ON_ITS_WAY:
            return order.fulfilled(Fulfillment.SHIPPED, now), saga.shipped(now)
        if event.to_state == delivery_pb.SHIPMENT_STATE_DELIVERED:
            return domain.arrived(order.fulfilled(Fulfillment.DELIVERED, now), now), saga.shipped(now)
        if event.to_state == delivery_pb.SHIPMENT_STATE_RETURNED:
            return order.fulfilled(Fulfillment.RETURNED, now), saga
        return order, saga

    await _change(tx, event.order_id, change)


async def on_payment_authorized(tx: Transaction, event: payment_events.PaymentAuthorized) -> None:
    """Void a promise that came too late for an order that was given up."""

    def change(order: Order, saga: Saga, now: datetime) -> tuple[Order, Saga]:
        if saga.state is SagaState.COMPENSATED:
            return order, saga.reopened(Step.AUTHORIZE_PAYMENT, now)
        return order, saga

    await _change(tx, event.order_id, change)


async def on_payment_captured(tx: Transaction, event: payment_events.PaymentCaptured) -> None:
    """Show the order as paid."""
    await _change(tx, event.order_id, lambda order, saga, now: (order.paid(Payment.PAID, now), saga))


async def on_payment_refunded(tx: Transaction, event: payment_events.PaymentRefunded) -> None:
    """Show how much of the order was given back."""
    whole = event.state == payment_pb.PAYMENT_STATE_REFUNDED
    state = Payment.REFUNDED if whole else Payment.PARTIALLY_REFUNDED
    await _change(tx, event.order_id, lambda order, saga, now: (order.paid(state, now), saga))


async def _change(tx: Transaction, order_id: str, change: Change) -> None:
    saga_before, now = await store.lock_saga(tx, domain_saga.saga_id(order_id))
    before = await store.lock_order(tx, order_id)
    after, saga = change(before, saga_before, now)
    if saga is not saga_before:
        await store.update_saga(tx, saga)
    after = await store.update_order(tx, before, after)
    await outbox.add(tx, *messages.changes(before, after))


HANDLERS: dict[type[Message], Handler] = {
    delivery_events.ShipmentStatusChanged: on_shipment_status_changed,
    payment_events.PaymentAuthorized: on_payment_authorized,
    payment_events.PaymentCaptured: on_payment_captured,
    payment_events.PaymentRefunded: on_payment_refunded,
}
