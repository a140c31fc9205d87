"""Applies events of payments to orders and their sagas."""

from datetime import datetime

from google.protobuf.message import Message

from chassis import Handler, Transaction, outbox
from shop.payment.v1 import payment_events_pb2 as events
from shop.payment.v1 import payment_service_pb2 as payment_pb
from svc_order import converters, domain_progress, store
from svc_order.domain import Order, Payment
from svc_order.domain_saga import Saga, SagaState, saga_id
from svc_order.domain_steps import Step

_AFTER_DISPUTE = {
    payment_pb.PAYMENT_STATE_CAPTURED: Payment.PAID,
    payment_pb.PAYMENT_STATE_PARTIALLY_REFUNDED: Payment.PARTIALLY_REFUNDED,
    payment_pb.PAYMENT_STATE_CHARGED_BACK: Payment.CHARGED_BACK,
}


async def on_payment_authorized(tx: Transaction, event: events.PaymentAuthorized) -> None:
    """Wake the saga that waits for the authorization; void one that came after the saga was compensated."""
    saga, now = await store.lock_saga(tx, saga_id(event.order_id))
    await _continue_saga(tx, saga, now)


async def on_payment_captured(tx: Transaction, event: events.PaymentCaptured) -> None:
    """Show the order as paid, and wake the saga that waits for that; refund a slip that was paid too late."""
    saga, order, now = await store.lock_saga_and_order(tx, event.order_id)
    await _continue_saga(tx, saga, now)
    await _save(tx, order, order.with_payment(Payment.PAID, now))


async def on_payment_voided(tx: Transaction, event: events.PaymentVoided) -> None:
    """Cancel an order whose authorization was voided at the provider."""
    await _apply_end(tx, event, "PAYMENT_VOIDED")


async def on_payment_failed(tx: Transaction, event: events.PaymentFailed) -> None:
    """Wake the saga that waits for the outcome; cancel an order whose payment fails after all."""
    await _apply_end(tx, event, event.decline_code.upper() or "PAYMENT_FAILED")


async def on_payment_expired(tx: Transaction, event: events.PaymentExpired) -> None:
    """Authorize the payment of a confirmed order anew; end an order that was not paid."""
    renewable = event.previous_state == payment_pb.PAYMENT_STATE_AUTHORIZED
    await _apply_end(tx, event, "PAYMENT_EXPIRED", renewable=renewable)


async def on_payment_refunded(tx: Transaction, event: events.PaymentRefunded) -> None:
    """Show whether the order was refunded in part or in full."""
    full = event.state == payment_pb.PAYMENT_STATE_REFUNDED
    await _save_payment(tx, event.order_id, Payment.REFUNDED if full else Payment.PARTIALLY_REFUNDED)


async def on_payment_disputed(tx: Transaction, event: events.PaymentDisputed) -> None:
    """Show that the customer disputes the charge."""
    await _save_payment(tx, event.order_id, Payment.DISPUTED)


async def on_payment_dispute_closed(tx: Transaction, event: events.PaymentDisputeClosed) -> None:
    """Show how the dispute ended."""
    await _save_payment(tx, event.order_id, _AFTER_DISPUTE[event.state])


async def _continue_saga(tx: Transaction, saga: Saga, now: datetime) -> None:
    """Wake a saga that waits for its payment; give a compensated one the payment to undo."""
    if saga.state is SagaState.COMPENSATED:
        await store.update_saga(tx, saga.reopened(Step.AUTHORIZE_PAYMENT, now))
    elif (woken := saga.woken(now)) is not saga:
        await store.update_saga(tx, woken)


async def _apply_end(
    tx: Transaction,
    event: events.PaymentVoided | events.PaymentFailed | events.PaymentExpired,
    reason: str,
    *,
    renewable: bool = False,
) -> None:
    saga, order, now = await store.lock_saga_and_order(tx, event.order_id)
    if order.payment_id != event.payment_id:
        return  # the order has another payment by now
    after, ended = domain_progress.after_payment_ended(order, saga, now, reason, renewable=renewable)
    if ended is not saga:
        await store.update_saga(tx, ended)
    await _save(tx, order, after)


async def _save_payment(tx: Transaction, order_id: str, payment: Payment) -> None:
    _, order, now = await store.lock_saga_and_order(tx, order_id)
    await _save(tx, order, order.with_payment(payment, now))


async def _save(tx: Transaction, before: Order, after: Order) -> None:
    saved = await store.update_order(tx, before, after)
    await outbox.add(tx, *converters.order_changed_events(before, saved))


HANDLERS: dict[type[Message], Handler] = {
    events.PaymentAuthorized: on_payment_authorized,
    events.PaymentCaptured: on_payment_captured,
    events.PaymentVoided: on_payment_voided,
    events.PaymentFailed: on_payment_failed,
    events.PaymentExpired: on_payment_expired,
    events.PaymentRefunded: on_payment_refunded,
    events.PaymentDisputed: on_payment_disputed,
    events.PaymentDisputeClosed: on_payment_dispute_closed,
}
