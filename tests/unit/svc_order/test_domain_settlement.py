"""Decisions of operators: which sagas and refunds they may settle, and what follows."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from shop.order.v1.order_errors import SagaStateConflict
from svc_order.domain import Payment, State
from svc_order.domain_saga import NEVER, Saga, SagaState
from svc_order.domain_settlement import Settlement, resumed, settled
from svc_order.domain_steps import STEPS, Step
from tests.unit.svc_order.test_domain import an_order

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def parked(step, parked_from=SagaState.RUNNING):
    saga = Saga(id="saga-1", order_id="order-1", next_attempt_time=NOW + NEVER, deadline=NOW, step=step, reason="WHY")
    return replace(saga, state=SagaState.PARKED, parked_from=parked_from)


@pytest.mark.parametrize("step", STEPS)
def test_a_saga_that_goes_forward_is_settled_only_after_its_parcel_has_left(step):
    if step in (Step.CAPTURE_PAYMENT, Step.FULFILL_RESERVATION):
        assert (resumed(parked(step)).state, resumed(parked(step)).reason) == (SagaState.RUNNING, "")
    else:
        with pytest.raises(SagaStateConflict):
            resumed(parked(step))
    with pytest.raises(SagaStateConflict):
        resumed(replace(parked(step), state=SagaState.RUNNING, parked_from=None))


def test_a_settled_capture_shows_the_order_as_paid_and_one_that_is_written_off_does_not():
    order = an_order(state=State.CONFIRMED, payment_state=Payment.UNPAID)
    for settlement, payment in ((Settlement.SETTLE, Payment.PAID), (Settlement.WRITE_OFF, Payment.UNPAID)):
        after, saga = settled(order, resumed(parked(Step.CAPTURE_PAYMENT)), settlement, NOW)
        assert (after.state, after.payment_state) == (State.SHIPPED, payment)
        assert (saga.state, saga.step, saga.next_attempt_time) == (SagaState.RUNNING, Step.FULFILL_RESERVATION, NOW)
    _, saga = settled(after, resumed(parked(Step.FULFILL_RESERVATION)), Settlement.SETTLE, NOW)
    assert saga.state is SagaState.DONE


def test_a_settled_compensation_goes_on_with_the_step_before_and_keeps_its_reason():
    order = an_order(state=State.CONFIRMED)
    _, saga = settled(order, resumed(parked(Step.BOOK_SLOT, SagaState.COMPENSATING)), Settlement.SETTLE, NOW)
    assert (saga.state, saga.step, saga.reason) == (SagaState.COMPENSATING, Step.RESERVE_STOCK, "WHY")
    after, saga = settled(
        order, resumed(replace(parked(Step.RESERVE_STOCK, SagaState.COMPENSATING))), Settlement.SETTLE, NOW
    )
    assert (saga.state, after.state, after.state_reason) == (SagaState.COMPENSATED, State.CANCELLED, "WHY")
