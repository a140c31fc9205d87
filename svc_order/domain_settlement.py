"""What operators decide about steps and refunds that are refused for good. Pure: no I/O, no clock, no proto."""

from dataclasses import replace
from datetime import datetime
from enum import Enum

from shop.order.v1.order_errors import SagaStateConflict
from svc_order import domain_progress
from svc_order.domain import Order
from svc_order.domain_saga import Saga, SagaState
from svc_order.domain_steps import Done


class Settlement(Enum):
    """What became of a refused step."""

    #: Its effect was achieved outside.
    SETTLE = "SETTLE"
    #: Its effect will never be achieved: the loss is accepted.
    WRITE_OFF = "WRITE_OFF"


class RefundDecision(Enum):
    """What is to become of a refused refund."""

    RETRY = "RETRY"
    REFUNDED_OUTSIDE = "REFUNDED_OUTSIDE"


def resumed(saga: Saga) -> Saga:
    """Return a parked saga as it was before it was parked; raises SagaStateConflict.

    One that goes forward can be settled only once its parcel has left: before, it is compensated.
    """
    is_undoing = saga.parked_from is SagaState.COMPENSATING
    if saga.parked_from is None or not (is_undoing or saga.has_departed):
        raise SagaStateConflict(saga_id=saga.id, state=saga.state.name, wanted="SETTLED")
    return replace(saga, state=saga.parked_from, parked_from=None, reason=saga.reason if is_undoing else "")


def settled(order: Order, saga: Saga, settlement: Settlement, now: datetime) -> tuple[Order, Saga]:
    """Return an order and its resumed saga after the current step; what is written off was not paid."""
    after = saga.advanced(Done(), now, 0.0)
    progress = domain_progress.after_step(order, after, saga.step, Done(), now)
    if settlement is Settlement.WRITE_OFF and progress is not order:
        progress = replace(progress, payment_state=order.payment_state)
    return progress, after
