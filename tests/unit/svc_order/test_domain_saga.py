"""The saga, for every result that its steps can have."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop.order.v1.order_errors import OrderNotCancellable, SagaStateConflict
from svc_order import domain_saga
from svc_order.domain import Fulfillment, Payment, State
from svc_order.domain_saga import Done, Pending, Refused, Saga, SagaState, Step, Unknown
from tests.unit.svc_order.test_domain import an_order

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LEASE = timedelta(seconds=15)
UNDONE = [Step.AUTHORIZE_PAYMENT, Step.BOOK_SLOT, Step.RESERVE_STOCK]


def a_saga(**changes):
    return Saga(**{"id": "saga-1", "order_id": "order-1", "next_attempt_time": NOW, **changes})


def walk(saga, *results):
    """Return the saga after its steps had these results, and the steps that were executed."""
    executed = []
    for result in results:
        executed.append((saga.state, saga.step))
        saga = saga.claimed(NOW, LEASE).advanced(result, NOW, 0.5)
    return saga, executed


def test_a_saga_awaits_its_shipment_after_four_steps():
    saga, executed = walk(a_saga(), *[Done()] * 4)
    assert [step for _, step in executed] == list(Step)[:4]
    assert saga.is_awaiting_shipment
    assert saga.next_attempt_time > NOW + timedelta(days=365)


def test_a_shipped_order_has_its_shipment_created_and_waits_for_the_departure():
    saga, _ = walk(a_saga(), *[Done()] * 4)
    requested = saga.with_shipment_requested("staff-1", NOW)
    assert (requested.step, requested.next_attempt_time, requested.shipment_actor) == (
        Step.CREATE_SHIPMENT,
        NOW,
        "staff-1",
    )
    assert requested.with_shipment_requested("staff-2", NOW) is requested
    waiting, executed = walk(requested, Unknown("UNAVAILABLE"), Done())
    assert [step for _, step in executed] == [Step.CREATE_SHIPMENT] * 2
    assert (waiting.state, waiting.step) == (SagaState.RUNNING, Step.AWAIT_PICKUP)
    assert waiting.next_attempt_time > NOW + timedelta(days=365)


def test_no_shipment_is_requested_of_a_saga_that_does_not_wait_for_it():
    for saga in (a_saga(), a_saga(step=Step.AUTHORIZE_PAYMENT, state=SagaState.COMPENSATING)):
        assert saga.with_shipment_requested("staff-1", NOW) is saga


def test_a_refused_shipment_parks_the_saga_and_only_an_operator_compensates_it():
    saga, _ = walk(a_saga(step=Step.CREATE_SHIPMENT), Refused("SHIPMENT_ID_TAKEN"))
    assert (saga.state, saga.step, saga.reason) == (SagaState.PARKED, Step.CREATE_SHIPMENT, "SHIPMENT_ID_TAKEN")
    with pytest.raises(OrderNotCancellable):
        saga.cancelled(NOW, "CHANGED_MIND", "", "shipment-1")
    compensating = saga.compensated_by_operator(NOW, "the courier is bankrupt")
    assert (compensating.state, compensating.step) == (SagaState.COMPENSATING, Step.AUTHORIZE_PAYMENT)


def test_the_departure_of_the_parcel_resumes_the_saga_to_its_end():
    saga, _ = walk(a_saga(), *[Done()] * 4)
    saga, _ = walk(saga.with_shipment_requested("staff-1", NOW), Done())
    saga, executed = walk(saga.departed(NOW), Done(), Done())
    assert [step for _, step in executed] == [Step.CAPTURE_PAYMENT, Step.FULFILL_RESERVATION]
    assert saga.state is SagaState.DONE


@pytest.mark.parametrize("position", range(4))
def test_a_refused_step_compensates_the_steps_before_it_in_reverse(position):
    saga, _ = walk(a_saga(), *[Done()] * position, Refused("NO"))
    undone = []
    while saga.state is SagaState.COMPENSATING:
        undone.append(saga.step)
        saga, _ = walk(saga, Done())
    done = list(Step)[:position]
    assert undone == [step for step in UNDONE if step in done]
    assert saga.state is SagaState.COMPENSATED
    assert saga.reason == "NO"


def test_a_step_with_an_unknown_outcome_is_repeated_and_not_compensated():
    saga, _ = walk(a_saga(), Done(), Done(), Unknown("UNAVAILABLE"))
    assert (saga.state, saga.step) == (SagaState.RUNNING, Step.AUTHORIZE_PAYMENT)
    assert saga.next_attempt_time > NOW


def test_a_saga_is_parked_after_too_many_unknown_outcomes():
    saga, _ = walk(a_saga(), *[Unknown("UNAVAILABLE")] * 12)
    assert saga.state is SagaState.PARKED
    retried = saga.retried(NOW)
    assert (retried.state, retried.step, retried.attempts) == (SagaState.RUNNING, Step.RESERVE_STOCK, 0)
    assert retried.retries == 1


def test_a_pending_step_uses_no_attempts():
    saga, _ = walk(a_saga(), Done(), Done(), *[Pending()] * 50)
    assert (saga.state, saga.step, saga.attempts) == (SagaState.RUNNING, Step.AUTHORIZE_PAYMENT, 0)


def test_a_step_refused_past_the_pivot_parks_the_saga_and_compensates_nothing():
    saga, _ = walk(a_saga(), *[Done()] * 4)
    saga, _ = walk(saga.departed(NOW), Refused("PAYMENT_STATE_CONFLICT"))
    assert (saga.state, saga.step) == (SagaState.PARKED, Step.CAPTURE_PAYMENT)
    with pytest.raises(SagaStateConflict):
        saga.compensated_by_operator(NOW, "no")


def test_a_cancellation_waits_for_the_step_in_progress():
    saga, _ = walk(a_saga(), Done(), Done())
    cancelling = saga.claimed(NOW, LEASE).cancelled(NOW, "CHANGED_MIND", "", "")
    assert cancelling.state is SagaState.RUNNING
    compensating = cancelling.advanced(Done(), NOW, 0.5)
    assert (compensating.state, compensating.step, compensating.reason) == (
        SagaState.COMPENSATING,
        Step.AUTHORIZE_PAYMENT,
        "CHANGED_MIND",
    )


def test_a_cancellation_does_not_wait_for_a_pending_step():
    saga, _ = walk(a_saga(), Done(), Done())
    compensating = saga.claimed(NOW, LEASE).cancelled(NOW, "CHANGED_MIND", "", "").advanced(Pending(), NOW, 0.5)
    assert (compensating.state, compensating.step) == (SagaState.COMPENSATING, Step.AUTHORIZE_PAYMENT)


def test_the_first_cancellation_counts():
    cancelling = a_saga().cancelled(NOW, "FIRST", "", "")
    assert cancelling.cancelled(NOW, "SECOND", "", "") is cancelling


def test_a_confirmed_order_is_cancelled_at_once_until_it_has_a_shipment():
    saga, _ = walk(a_saga(), *[Done()] * 4)
    back = saga.cancelled(NOW, "CHANGED_MIND", "it is too small", "")
    assert (back.state, back.step) == (SagaState.COMPENSATING, Step.AUTHORIZE_PAYMENT)
    assert (back.reason, back.message) == ("CHANGED_MIND", "it is too small")
    with pytest.raises(OrderNotCancellable):
        saga.cancelled(NOW, "CHANGED_MIND", "", "shipment-1")
    with pytest.raises(OrderNotCancellable):
        saga.departed(NOW).cancelled(NOW, "CHANGED_MIND", "", "")


def test_an_operator_compensates_the_current_step_too():
    saga, _ = walk(a_saga(), Done(), Done(), *[Unknown("UNAVAILABLE")] * 12)
    back = saga.compensated_by_operator(NOW, "the provider rang")
    assert (back.state, back.step) == (SagaState.COMPENSATING, Step.AUTHORIZE_PAYMENT)
    assert (back.reason, back.message) == ("COMPENSATED_BY_OPERATOR", "the provider rang")


def test_a_compensated_saga_is_reopened_for_a_late_payment():
    saga, _ = walk(a_saga(), Refused("NO"))
    assert saga.state is SagaState.COMPENSATED
    saga, _ = walk(saga.reopened(Step.AUTHORIZE_PAYMENT, NOW), Done(), Done(), Done())
    assert saga.state is SagaState.COMPENSATED


def test_a_claim_ends_with_its_lease():
    claimed = a_saga(attempts=3).claimed(NOW, LEASE)
    assert (claimed.attempts, claimed.next_attempt_time, claimed.version) == (4, NOW + LEASE, 2)


@pytest.mark.parametrize("result", [Done(), Refused("NO"), Unknown("UNAVAILABLE"), Pending()], ids=repr)
def test_each_result_of_each_step_ends_the_claim(result):
    forth = [a_saga(step=step, attempts=attempts) for step in Step for attempts in (1, 12)]
    back = [
        a_saga(state=SagaState.COMPENSATING, step=step, attempts=attempts) for step in UNDONE for attempts in (1, 12)
    ]
    for saga in (*forth, *back):
        assert saga.advanced(result, NOW, 0.5).version > saga.version


def test_the_pause_between_attempts_doubles_up_to_fifteen_seconds():
    pauses = []
    saga = a_saga()
    for _ in range(11):
        saga = saga.claimed(NOW, LEASE).advanced(Unknown("UNAVAILABLE"), NOW, 1.0)
        pauses.append((saga.next_attempt_time - NOW).total_seconds())
    assert pauses == [0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 15, 15, 15, 15, 15]
    assert saga.state is SagaState.RUNNING
    spread = a_saga().claimed(NOW, LEASE).advanced(Unknown("UNAVAILABLE"), NOW, 0.0)
    assert spread.next_attempt_time - NOW == timedelta(milliseconds=200)


def test_a_pending_step_is_called_again_after_a_second():
    claimed = a_saga(step=Step.AUTHORIZE_PAYMENT, attempts=2).claimed(NOW, LEASE).advanced(Pending(), NOW, 0.5)
    assert (claimed.next_attempt_time, claimed.attempts) == (NOW + timedelta(seconds=1), 2)


def test_a_cancellation_leaves_the_claim_of_the_step_alone():
    claimed = a_saga().claimed(NOW, LEASE)
    cancelling = claimed.cancelled(NOW, "CHANGED_MIND", "it is too small", "")
    assert (cancelling.version, cancelling.next_attempt_time) == (claimed.version, claimed.next_attempt_time)
    assert (cancelling.cancel_reason, cancelling.message) == ("CHANGED_MIND", "it is too small")


def test_a_refused_step_of_a_cancelled_order_compensates_with_the_reason_of_the_cancellation():
    cancelling = a_saga(step=Step.BOOK_SLOT).claimed(NOW, LEASE).cancelled(NOW, "CHANGED_MIND", "", "")
    compensating = cancelling.advanced(Refused("SLOT_FULL"), NOW, 0.5)
    assert (compensating.state, compensating.step, compensating.reason) == (
        SagaState.COMPENSATING,
        Step.RESERVE_STOCK,
        "CHANGED_MIND",
    )


@pytest.mark.parametrize(
    "ended", [{"state": SagaState.COMPENSATING}, {"state": SagaState.COMPENSATED}], ids=["on its way back", "undone"]
)
def test_a_cancellation_changes_no_saga_that_compensates(ended):
    saga = a_saga(step=Step.BOOK_SLOT, reason="PAYMENT_DECLINED", **ended)
    assert saga.cancelled(NOW, "CHANGED_MIND", "", "") is saga
    stuck = a_saga(state=SagaState.COMPENSATING, step=Step.BOOK_SLOT).parked("UNAVAILABLE")
    assert stuck.cancelled(NOW, "CHANGED_MIND", "", "") is stuck


@pytest.mark.parametrize("step", list(Step)[list(Step).index(Step.CREATE_SHIPMENT) :])
@pytest.mark.parametrize("state", [SagaState.RUNNING, SagaState.PARKED, SagaState.DONE])
def test_nothing_is_cancelled_past_the_pivot(state, step):
    with pytest.raises(OrderNotCancellable):
        a_saga(state=state, step=step).cancelled(NOW, "CHANGED_MIND", "", "")


def test_a_cancellation_of_a_parked_saga_is_kept_until_it_is_retried():
    parked = a_saga(step=Step.BOOK_SLOT).parked("UNAVAILABLE")
    cancelling = parked.cancelled(NOW, "CHANGED_MIND", "", "")
    assert (cancelling.state, cancelling.cancel_reason) == (SagaState.PARKED, "CHANGED_MIND")
    back = cancelling.retried(NOW).claimed(NOW, LEASE).advanced(Done(), NOW, 0.5)
    assert (back.state, back.step) == (SagaState.COMPENSATING, Step.BOOK_SLOT)


def test_an_error_in_compensating_does_not_replace_the_first_reason():
    back = a_saga(state=SagaState.COMPENSATING, step=Step.BOOK_SLOT, reason="PAYMENT_DECLINED")
    stuck = back.claimed(NOW, LEASE).advanced(Refused("BOOKING_STATE_CONFLICT"), NOW, 0.5)
    assert (stuck.state, stuck.parked_from, stuck.reason) == (
        SagaState.PARKED,
        SagaState.COMPENSATING,
        "PAYMENT_DECLINED",
    )
    retried = stuck.retried(NOW)
    assert (retried.state, retried.parked_from, retried.reason) == (
        SagaState.COMPENSATING,
        None,
        "PAYMENT_DECLINED",
    )


def test_a_retried_saga_that_goes_forward_has_no_reason():
    parked = a_saga(step=Step.BOOK_SLOT, attempts=12).advanced(Unknown("UNAVAILABLE"), NOW, 0.5)
    assert (parked.state, parked.reason) == (SagaState.PARKED, "UNAVAILABLE")
    retried = parked.retried(NOW)
    assert (retried.reason, retried.next_attempt_time, retried.is_active) == ("", NOW, True)


@pytest.mark.parametrize("state", SagaState)
def test_only_a_saga_whose_state_leads_to_compensating_is_reopened(state):
    saga = a_saga(state=state, step=Step.AUTHORIZE_PAYMENT)
    if state is SagaState.DONE:
        with pytest.raises(ValueError, match="cannot go from DONE to COMPENSATING"):
            saga.reopened(Step.AUTHORIZE_PAYMENT, NOW)
    else:
        assert saga.reopened(Step.AUTHORIZE_PAYMENT, NOW).state is SagaState.COMPENSATING


def test_only_a_parked_saga_is_retried():
    for state in (SagaState.RUNNING, SagaState.DONE, SagaState.COMPENSATING, SagaState.COMPENSATED):
        with pytest.raises(SagaStateConflict) as error:
            a_saga(state=state).retried(NOW)
        assert error.value.metadata["state"] == state.name


def test_an_operator_compensates_only_a_saga_that_goes_forward_before_the_departure():
    for state in (SagaState.DONE, SagaState.COMPENSATING, SagaState.COMPENSATED):
        with pytest.raises(SagaStateConflict):
            a_saga(state=state).compensated_by_operator(NOW, "no")
    for step in (Step.CAPTURE_PAYMENT, Step.FULFILL_RESERVATION):
        with pytest.raises(SagaStateConflict):
            a_saga(step=step).parked("UNAVAILABLE").compensated_by_operator(NOW, "no")
    for step in (Step.AWAIT_SHIPMENT, Step.CREATE_SHIPMENT, Step.AWAIT_PICKUP):
        waiting = a_saga(step=step).compensated_by_operator(NOW, "the courier lost it")
        assert (waiting.state, waiting.step) == (SagaState.COMPENSATING, Step.AUTHORIZE_PAYMENT)
    parked = a_saga(step=Step.BOOK_SLOT).parked("UNAVAILABLE").compensated_by_operator(NOW, "no")
    assert parked.parked_from is None


def test_an_order_is_shippable_from_its_confirmation_on_unless_its_saga_compensates():
    shippable = {step for step in Step if a_saga(step=step).is_shippable}
    assert shippable == set(list(Step)[4:])
    assert a_saga(state=SagaState.DONE, step=Step.FULFILL_RESERVATION).is_shippable
    assert not a_saga(state=SagaState.PARKED, step=Step.AWAIT_SHIPMENT).is_shippable
    for state in (SagaState.COMPENSATING, SagaState.COMPENSATED):
        assert not any(a_saga(state=state, step=step).is_shippable for step in UNDONE)


@pytest.mark.parametrize("step", [Step.AWAIT_SHIPMENT, Step.CREATE_SHIPMENT, Step.AWAIT_PICKUP])
def test_a_departed_parcel_resumes_a_saga_that_waits_for_it_or_still_creates_its_shipment(step):
    departed = a_saga(step=step, next_attempt_time=NOW + domain_saga.NEVER).departed(NOW)
    assert (departed.step, departed.next_attempt_time, departed.version) == (Step.CAPTURE_PAYMENT, NOW, 2)
    assert departed.departed(NOW) is departed


def test_a_departed_parcel_resumes_a_saga_that_was_parked_without_knowing_of_its_shipment():
    parked = a_saga(step=Step.CREATE_SHIPMENT).parked("UNAVAILABLE")
    departed = parked.departed(NOW)
    assert (departed.state, departed.parked_from, departed.reason) == (SagaState.RUNNING, None, "")
    assert departed.step is Step.CAPTURE_PAYMENT


def test_a_departed_parcel_changes_no_other_saga():
    compensating = a_saga(state=SagaState.COMPENSATING, step=Step.AUTHORIZE_PAYMENT)
    done = a_saga(state=SagaState.DONE, step=Step.FULFILL_RESERVATION)
    for saga in (a_saga(), compensating, compensating.parked("UNAVAILABLE"), done):
        assert saga.departed(NOW) is saga


@pytest.mark.parametrize("state", State)
def test_an_order_is_cancelled_only_before_it_is_shipped(state):
    saga, order = a_saga(step=Step.AWAIT_SHIPMENT), an_order(state=state)
    if state in (State.PENDING, State.CONFIRMED):
        assert domain_saga.cancel(order, saga, NOW, "CHANGED_MIND", "").state is SagaState.COMPENSATING
    else:
        with pytest.raises(OrderNotCancellable) as error:
            domain_saga.cancel(order, saga, NOW, "CHANGED_MIND", "")
        assert error.value.metadata["state"] == state.name


def test_each_completed_step_changes_the_order():
    def after(order, step, result=Done(), state=SagaState.RUNNING):  # noqa: B008  frozen
        return domain_saga.after_step(order, a_saga(state=state), step, result, NOW)

    order = an_order()
    for step in (Step.RESERVE_STOCK, Step.BOOK_SLOT, Step.FULFILL_RESERVATION):
        assert after(order, step) is order
    for result in (Refused("NO"), Unknown("UNAVAILABLE"), Pending()):
        assert after(order, Step.AUTHORIZE_PAYMENT, result) is order
    assert after(order, Step.AUTHORIZE_PAYMENT, state=SagaState.COMPENSATING) is order
    authorized = after(order, Step.AUTHORIZE_PAYMENT)
    assert (authorized.state, authorized.payment_state) == (State.PENDING, Payment.AUTHORIZED)
    confirmed = after(authorized, Step.CONFIRM_RESERVATION)
    assert (confirmed.state, confirmed.fulfillment_state) == (State.CONFIRMED, Fulfillment.ALLOCATED)
    shipped = after(confirmed, Step.CAPTURE_PAYMENT)
    assert (shipped.state, shipped.payment_state) == (State.SHIPPED, Payment.PAID)


def test_a_confirmed_order_whose_saga_is_compensated_is_cancelled_and_not_rejected():
    saga = a_saga(state=SagaState.COMPENSATED, reason="COMPENSATED_BY_OPERATOR", message="the shelf fell")
    order = an_order(state=State.CONFIRMED, payment_state=Payment.AUTHORIZED, fulfillment_state=Fulfillment.ALLOCATED)
    ended = domain_saga.after_step(order, saga, Step.RESERVE_STOCK, Done(), NOW)
    assert (ended.state, ended.state_reason, ended.state_message) == (
        State.CANCELLED,
        "COMPENSATED_BY_OPERATOR",
        "the shelf fell",
    )
    assert (ended.payment_state, ended.fulfillment_state) == (Payment.UNPAID, Fulfillment.UNFULFILLED)


def test_a_compensated_saga_rejects_its_order_or_cancels_it_when_that_was_requested():
    order = an_order()
    saga, _ = walk(a_saga(), Refused("INSUFFICIENT_STOCK"))
    rejected = domain_saga.after_step(order, saga, Step.RESERVE_STOCK, Refused("INSUFFICIENT_STOCK"), NOW)
    assert (rejected.state, rejected.state_reason) == (State.REJECTED, "INSUFFICIENT_STOCK")
    cancelling, _ = walk(a_saga().cancelled(NOW, "CHANGED_MIND", "", ""), Refused("INSUFFICIENT_STOCK"))
    cancelled = domain_saga.after_step(order, cancelling, Step.RESERVE_STOCK, Refused("INSUFFICIENT_STOCK"), NOW)
    assert (cancelled.state, cancelled.state_reason) == (State.CANCELLED, "CHANGED_MIND")


RESULTS = st.sampled_from([Done(), Done(), Done(), Refused("NO"), Unknown("UNAVAILABLE"), Pending()])


@given(results=st.lists(RESULTS, max_size=60), cancel_at=st.integers(0, 60))
def test_any_sequence_of_results_makes_legal_transitions_and_the_version_grows(results, cancel_at):
    """A confirmed order has each step done, a rejected or cancelled one has each step compensated."""
    saga, order, held = a_saga(), an_order(), set()
    for turn, result in enumerate(results):
        if saga.state not in (SagaState.RUNNING, SagaState.COMPENSATING) or saga.is_awaiting_shipment:
            break
        before, step, back = saga, saga.step, saga.state is SagaState.COMPENSATING
        saga = saga.claimed(NOW, LEASE)
        if turn == cancel_at:
            saga = saga.cancelled(NOW, "CHANGED_MIND", "", "")
        saga = saga.advanced(result, NOW, 0.5)
        if isinstance(result, Done):
            (held.discard if back else held.add)(step)
        order = domain_saga.after_step(order, saga, step, result, NOW)
        assert saga.version > before.version
    if order.state is State.CONFIRMED:
        assert held == set(list(Step)[:4])
    if saga.state is SagaState.COMPENSATED:
        assert order.state in (State.REJECTED, State.CANCELLED)
        assert not held & set(UNDONE)
