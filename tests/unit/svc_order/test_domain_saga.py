"""The saga, walked through every outcome that its steps can have."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop.order.v1.order_errors import OrderNotCancellable, SagaStateConflict
from svc_order import domain_saga
from svc_order.domain import State
from svc_order.domain_saga import Done, Pending, Refused, Saga, SagaState, Step, Unknown
from tests.unit.svc_order.test_domain import an_order

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LEASE = timedelta(seconds=15)
UNDONE = [Step.AUTHORIZE_PAYMENT, Step.BOOK_SLOT, Step.RESERVE_STOCK]


def a_saga(**changes):
    return Saga(**{"id": "saga-1", "order_id": "order-1", "next_attempt_time": NOW, **changes})


def walk(saga, *outcomes):
    """Return the saga after its steps had these outcomes, and the steps that were taken."""
    taken = []
    for outcome in outcomes:
        taken.append((saga.state, saga.step))
        saga = saga.claimed(NOW, LEASE).advanced(outcome, NOW, 0.5)
    return saga, taken


def test_four_steps_bring_it_to_wait_for_the_parcel():
    saga, taken = walk(a_saga(), *[Done()] * 4)
    assert [step for _, step in taken] == list(Step)[:4]
    assert saga.waits
    assert saga.next_attempt_time > NOW + timedelta(days=365)


def test_the_parcel_sets_it_going_to_its_end():
    saga, _ = walk(a_saga(), *[Done()] * 4)
    saga, taken = walk(saga.shipped(NOW), Done(), Done())
    assert [step for _, step in taken] == [Step.CAPTURE_PAYMENT, Step.FULFILL_RESERVATION]
    assert saga.state is SagaState.DONE


@pytest.mark.parametrize("position", range(4))
def test_a_refusal_undoes_what_was_done_in_reverse(position):
    saga, _ = walk(a_saga(), *[Done()] * position, Refused("NO"))
    undone = []
    while saga.state is SagaState.COMPENSATING:
        undone.append(saga.step)
        saga, _ = walk(saga, Done())
    done = list(Step)[:position]
    assert undone == [step for step in UNDONE if step in done]
    assert saga.state is SagaState.COMPENSATED
    assert saga.reason == "NO"


def test_an_unknown_outcome_is_repeated_and_never_undone():
    saga, _ = walk(a_saga(), Done(), Done(), Unknown("UNAVAILABLE"))
    assert (saga.state, saga.step) == (SagaState.RUNNING, Step.AUTHORIZE_PAYMENT)
    assert saga.next_attempt_time > NOW


def test_after_too_many_unknown_outcomes_it_waits_for_a_person():
    saga, _ = walk(a_saga(), *[Unknown("UNAVAILABLE")] * 12)
    assert saga.state is SagaState.PARKED
    retried = saga.retried(NOW)
    assert (retried.state, retried.step, retried.attempts) == (SagaState.RUNNING, Step.RESERVE_STOCK, 0)
    assert retried.retries == 1


def test_waiting_for_a_provider_uses_up_no_attempts():
    saga, _ = walk(a_saga(), Done(), Done(), *[Pending()] * 50)
    assert (saga.state, saga.step, saga.attempts) == (SagaState.RUNNING, Step.AUTHORIZE_PAYMENT, 0)


def test_past_the_pivot_a_refusal_waits_for_a_person_and_nothing_is_undone():
    saga, _ = walk(a_saga(), *[Done()] * 4)
    saga, _ = walk(saga.shipped(NOW), Refused("PAYMENT_STATE_CONFLICT"))
    assert (saga.state, saga.step) == (SagaState.PARKED, Step.CAPTURE_PAYMENT)
    with pytest.raises(SagaStateConflict):
        saga.compensated_by_hand(NOW, "no")


def test_a_wish_to_cancel_waits_for_the_step_under_way():
    saga, _ = walk(a_saga(), Done(), Done())
    wished = saga.claimed(NOW, LEASE).cancelled(NOW, "CHANGED_MIND", "", "")
    assert wished.state is SagaState.RUNNING
    granted = wished.advanced(Done(), NOW, 0.5)
    assert (granted.state, granted.step, granted.reason) == (
        SagaState.COMPENSATING,
        Step.AUTHORIZE_PAYMENT,
        "CHANGED_MIND",
    )


def test_a_wish_to_cancel_does_not_wait_for_a_provider():
    saga, _ = walk(a_saga(), Done(), Done())
    granted = saga.claimed(NOW, LEASE).cancelled(NOW, "CHANGED_MIND", "", "").advanced(Pending(), NOW, 0.5)
    assert (granted.state, granted.step) == (SagaState.COMPENSATING, Step.AUTHORIZE_PAYMENT)


def test_a_wish_is_noted_once():
    wished = a_saga().cancelled(NOW, "FIRST", "", "")
    assert wished.cancelled(NOW, "SECOND", "", "") is wished


def test_a_confirmed_order_is_cancelled_at_once_until_it_has_a_shipment():
    saga, _ = walk(a_saga(), *[Done()] * 4)
    assert saga.cancelled(NOW, "CHANGED_MIND", "", "").state is SagaState.COMPENSATING
    with pytest.raises(OrderNotCancellable):
        saga.cancelled(NOW, "CHANGED_MIND", "", "shipment-1")
    with pytest.raises(OrderNotCancellable):
        saga.shipped(NOW).cancelled(NOW, "CHANGED_MIND", "", "")


def test_by_hand_the_present_step_is_undone_too():
    saga, _ = walk(a_saga(), Done(), Done(), *[Unknown("UNAVAILABLE")] * 12)
    back = saga.compensated_by_hand(NOW, "the provider rang")
    assert (back.state, back.step) == (SagaState.COMPENSATING, Step.AUTHORIZE_PAYMENT)
    assert (back.reason, back.message) == ("COMPENSATED_BY_OPERATOR", "the provider rang")


def test_a_payment_that_came_too_late_is_undone_again():
    saga, _ = walk(a_saga(), Refused("NO"))
    assert saga.state is SagaState.COMPENSATED
    saga, _ = walk(saga.reopened(Step.AUTHORIZE_PAYMENT, NOW), Done(), Done(), Done())
    assert saga.state is SagaState.COMPENSATED


def test_orders_end_as_their_sagas_do():
    order = an_order()
    saga, _ = walk(a_saga(), Refused("INSUFFICIENT_STOCK"))
    rejected = domain_saga.after_step(order, saga, Step.RESERVE_STOCK, Refused("INSUFFICIENT_STOCK"), NOW)
    assert (rejected.state, rejected.state_reason) == (State.REJECTED, "INSUFFICIENT_STOCK")
    wished, _ = walk(a_saga().cancelled(NOW, "CHANGED_MIND", "", ""), Refused("INSUFFICIENT_STOCK"))
    cancelled = domain_saga.after_step(order, wished, Step.RESERVE_STOCK, Refused("INSUFFICIENT_STOCK"), NOW)
    assert (cancelled.state, cancelled.state_reason) == (State.CANCELLED, "CHANGED_MIND")


OUTCOMES = st.sampled_from([Done(), Done(), Done(), Refused("NO"), Unknown("UNAVAILABLE"), Pending()])


@given(outcomes=st.lists(OUTCOMES, max_size=60), cancel_at=st.integers(0, 60))
def test_whatever_happens_the_saga_makes_legal_moves_and_its_version_grows(outcomes, cancel_at):
    """Walk at random: an order is CONFIRMED only with everything done, given up only with all of it undone."""
    saga, order, held = a_saga(), an_order(), set()
    for turn, outcome in enumerate(outcomes):
        if saga.state not in (SagaState.RUNNING, SagaState.COMPENSATING) or saga.waits:
            break
        before, step, back = saga, saga.step, saga.state is SagaState.COMPENSATING
        saga = saga.claimed(NOW, LEASE)
        if turn == cancel_at:
            saga = saga.cancelled(NOW, "CHANGED_MIND", "", "")
        saga = saga.advanced(outcome, NOW, 0.5)
        if isinstance(outcome, Done):
            (held.discard if back else held.add)(step)
        order = domain_saga.after_step(order, saga, step, outcome, NOW)
        assert saga.version > before.version
    if order.state is State.CONFIRMED:
        assert held == set(list(Step)[:4])
    if saga.state is SagaState.COMPENSATED:
        assert order.state in (State.REJECTED, State.CANCELLED)
        assert not held & set(UNDONE)
