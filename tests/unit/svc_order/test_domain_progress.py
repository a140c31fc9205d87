"""What becomes of an order when its payment ends without a charge."""

import pytest

from svc_order.domain import Payment, State
from svc_order.domain_progress import after_payment_ended, after_step
from svc_order.domain_saga import SagaState
from svc_order.domain_steps import Done, Pending, Refused, Step
from tests.unit.svc_order.test_domain import an_order
from tests.unit.svc_order.test_domain_saga import DEADLINE, LEASE, NOW, a_saga


def ended(step, *, renewable=False, state=SagaState.RUNNING):
    order = an_order(state=State.CONFIRMED, payment_state=Payment.AUTHORIZED)
    return after_payment_ended(order, a_saga(step=step, state=state), NOW, "PAYMENT_ENDED", renewable=renewable)


def test_a_confirmed_order_whose_authorization_expired_is_authorized_anew():
    order, saga = ended(Step.AWAIT_SHIPMENT, renewable=True)
    assert (order.payment_state, saga.state, saga.step) == (Payment.UNPAID, SagaState.RUNNING, Step.AUTHORIZE_PAYMENT)
    assert saga.deadline > NOW
    assert not saga.is_shippable
    declined = saga.claimed(NOW, LEASE).advanced(Refused("PAYMENT_DECLINED"), NOW, 0.5)
    assert (declined.state, declined.reason) == (SagaState.COMPENSATING, "PAYMENT_DECLINED")


def test_a_confirmed_order_whose_authorization_was_voided_is_cancelled_with_the_reason():
    order, saga = ended(Step.AWAIT_SHIPMENT)
    assert (order.payment_state, saga.state, saga.reason) == (
        Payment.UNPAID,
        SagaState.COMPENSATING,
        "PAYMENT_ENDED",
    )


def test_an_authorization_that_ends_during_the_confirmation_cancels_the_order_afterwards():
    claimed = a_saga(step=Step.CONFIRM_RESERVATION).claimed(NOW, LEASE)
    _, saga = after_payment_ended(an_order(), claimed, NOW, "PAYMENT_ENDED", renewable=True)
    back = saga.advanced(Done(), NOW, 0.5)
    assert (back.state, back.reason) == (SagaState.COMPENSATING, "PAYMENT_ENDED")


@pytest.mark.parametrize("step", [Step.CREATE_SHIPMENT, Step.AWAIT_PICKUP])
def test_an_authorization_that_ends_when_there_is_a_shipment_cancels_that_first(step):
    order, saga = ended(step, renewable=True)
    assert (order.payment_state, saga.state, saga.step, saga.reason) == (
        Payment.UNPAID,
        SagaState.COMPENSATING,
        Step.CREATE_SHIPMENT,
        "PAYMENT_ENDED",
    )


def test_a_saga_that_waits_for_the_payment_looks_what_became_of_it():
    order, saga = ended(Step.AWAIT_PAYMENT)
    assert (order.payment_state, saga.step, saga.next_attempt_time) == (Payment.AUTHORIZED, Step.AWAIT_PAYMENT, NOW)


@pytest.mark.parametrize("step", [Step.RESERVE_STOCK, Step.BOOK_SLOT, Step.AUTHORIZE_PAYMENT])
def test_the_end_of_a_payment_changes_no_saga_before_its_authorization(step):
    order, saga = ended(step)
    assert (order.payment_state, saga) == (Payment.AUTHORIZED, a_saga(step=step))


@pytest.mark.parametrize("state", [state for state in SagaState if state is not SagaState.RUNNING])
def test_the_end_of_a_payment_changes_no_saga_that_does_not_go_forward(state):
    _, saga = ended(Step.AUTHORIZE_PAYMENT, state=state)
    assert saga == a_saga(step=Step.AUTHORIZE_PAYMENT, state=state)


def test_an_order_shows_that_it_waits_for_its_payment():
    saga = a_saga(step=Step.AUTHORIZE_PAYMENT).claimed(NOW, LEASE).advanced(Pending(), NOW, 0.5)
    waiting = after_step(an_order(), saga, Step.AUTHORIZE_PAYMENT, Pending(), NOW)
    assert (waiting.payment_state, waiting.payment_due_time) == (Payment.PENDING, DEADLINE)
    assert after_step(waiting, saga, Step.AWAIT_PAYMENT, Pending(), NOW) is waiting
