"""How an order and its saga follow from each other, and from the order's payment. Pure: no I/O, no clock, no proto."""

from datetime import datetime, timedelta

from shop.order.v1.order_errors import OrderNotCancellable
from svc_order.domain import Fulfillment, Order, Payment, State
from svc_order.domain_saga import Saga, SagaState
from svc_order.domain_steps import SKIPPED, Done, Step, StepResult

#: How long the provider may take to authorize the payment of a confirmed order anew.
_REAUTHORIZE_WITHIN = timedelta(hours=1)


def cancel(order: Order, saga: Saga, now: datetime, reason: str, message: str) -> Saga:
    """Return the saga of an order that is to be cancelled; raises OrderNotCancellable when it is too late."""
    if order.state not in (State.PENDING, State.CONFIRMED):
        raise OrderNotCancellable(order_id=order.id, state=order.state.name)
    return saga.cancelled(now, reason, message, order.shipment_id)


def after_step(  # noqa: PLR0911  a table
    order: Order, saga: Saga, step: Step, result: StepResult, now: datetime
) -> Order:
    """Return the order after `step` returned `result`, which brought the saga to where it is."""
    if saga.state is SagaState.COMPENSATED:
        cancelled = saga.cancel_reason or order.state is State.CONFIRMED
        order = order.with_payment(Payment.UNPAID, now).with_fulfillment(Fulfillment.UNFULFILLED, now)
        return order.transition_to(State.CANCELLED if cancelled else State.REJECTED, now, saga.reason, saga.message)
    if saga.state is SagaState.COMPENSATING:
        return order
    if saga.step in SKIPPED:
        return order.awaiting_payment(saga.deadline, saga.reason, now)
    if not isinstance(result, Done):
        return order
    match step:
        case Step.AUTHORIZE_PAYMENT | Step.AWAIT_PAYMENT:
            return order.with_payment(Payment.AUTHORIZED, now)
        case Step.CONFIRM_RESERVATION:
            return order.with_fulfillment(Fulfillment.ALLOCATED, now).transition_to(State.CONFIRMED, now)
        case Step.CAPTURE_PAYMENT:
            return order.with_payment(Payment.PAID, now).transition_to(State.SHIPPED, now)
        case _:
            return order


def after_payment_ended(order: Order, saga: Saga, now: datetime, reason: str, *, renewable: bool) -> tuple[Order, Saga]:
    """Return an order and its saga after its payment failed, was voided or has expired.

    A confirmed order is not shipped without an authorization: it gets a new one if the payment is `renewable`, and is
    cancelled otherwise, with its shipment if that has not departed.
    """
    if saga.state is not SagaState.RUNNING:
        return order, saga  # a saga that compensates voids the payment itself
    step = saga.step
    if step is Step.AWAIT_PAYMENT:
        return order, saga.woken(now)
    if step.position < Step.CONFIRM_RESERVATION.position:
        return order, saga  # the step's own result says so
    order = order.with_payment(Payment.UNPAID, now)
    if step.is_past_pivot:
        return order, saga if step.is_after_departure else saga.unpaid(now, reason)
    if renewable and saga.is_awaiting_shipment:
        return order, saga.reauthorizing(now, _REAUTHORIZE_WITHIN)
    return order, saga.cancelled(now, reason, "", order.shipment_id)
