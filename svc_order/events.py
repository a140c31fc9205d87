"""Applies events of shipments and payments to orders, and resumes the sagas that wait for their parcels."""

from google.protobuf.message import Message

from chassis import Handler, Transaction, outbox
from shop.delivery.v1 import delivery_events_pb2 as delivery_events
from shop.delivery.v1 import shipment_service_pb2 as delivery_pb
from shop.payment.v1 import payment_events_pb2 as payment_events
from shop.payment.v1 import payment_service_pb2 as payment_pb
from svc_order import converters, store
from svc_order.domain import Fulfillment, Order, Payment, deliver_if_arrived
from svc_order.domain_saga import Done, SagaState, Step

_FULFILLMENT = {
    delivery_pb.SHIPMENT_STATE_PICKED_UP: Fulfillment.SHIPPED,
    delivery_pb.SHIPMENT_STATE_IN_TRANSIT: Fulfillment.SHIPPED,
    delivery_pb.SHIPMENT_STATE_OUT_FOR_DELIVERY: Fulfillment.SHIPPED,
    delivery_pb.SHIPMENT_STATE_DELIVERED: Fulfillment.DELIVERED,
    delivery_pb.SHIPMENT_STATE_RETURNED: Fulfillment.RETURNED,
}


async def on_shipment_status_changed(tx: Transaction, event: delivery_events.ShipmentStatusChanged) -> None:
    """Follow the parcel; its departure resumes the saga, which captures the payment."""
    fulfillment = _FULFILLMENT.get(event.to_state)
    if fulfillment is None:
        return
    saga, order, now = await store.lock_saga_and_order(tx, event.order_id)
    if fulfillment is not Fulfillment.RETURNED and (resumed := saga.departed(now)) is not saga:
        if saga.step is Step.CREATE_SHIPMENT:
            await store.write_step(tx, saga, Done())  # the attempt in progress no longer settles it
        await store.update_saga(tx, resumed)
    await _save(tx, order, deliver_if_arrived(order.with_fulfillment(fulfillment, now), now))


async def on_payment_authorized(tx: Transaction, event: payment_events.PaymentAuthorized) -> None:
    """Void an authorization that came after the order's saga was compensated."""
    saga, _, now = await store.lock_saga_and_order(tx, event.order_id)
    if saga.state is SagaState.COMPENSATED:
        await store.update_saga(tx, saga.reopened(Step.AUTHORIZE_PAYMENT, now))


async def on_payment_captured(tx: Transaction, event: payment_events.PaymentCaptured) -> None:
    """Show the order as paid."""
    await _save_payment(tx, event.order_id, Payment.PAID)


async def on_payment_refunded(tx: Transaction, event: payment_events.PaymentRefunded) -> None:
    """Show whether the order was refunded in part or in full."""
    full = event.state == payment_pb.PAYMENT_STATE_REFUNDED
    await _save_payment(tx, event.order_id, Payment.REFUNDED if full else Payment.PARTIALLY_REFUNDED)


async def _save_payment(tx: Transaction, order_id: str, payment: Payment) -> None:
    _, order, now = await store.lock_saga_and_order(tx, order_id)
    await _save(tx, order, order.with_payment(payment, now))


async def _save(tx: Transaction, before: Order, after: Order) -> None:
    saved = await store.update_order(tx, before, after)
    await outbox.add(tx, *converters.order_changed_events(before, saved))


HANDLERS: dict[type[Message], Handler] = {
    delivery_events.ShipmentStatusChanged: on_shipment_status_changed,
    payment_events.PaymentAuthorized: on_payment_authorized,
    payment_events.PaymentCaptured: on_payment_captured,
    payment_events.PaymentRefunded: on_payment_refunded,
}
