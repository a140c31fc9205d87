"""The saga, for every result that its steps can have."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop.order.v1.order_errors import OrderNotCancellable, OrderNotPayable, SagaStateConflict
from svc_order import domain_progress, domain_saga
from svc_order.domain import Fulfillment, Payment, State
from svc_order.domain_saga import Saga, SagaState
from svc_order.domain_steps import Done, Pending, Refused, Step, Unknown
from tests.unit.svc_order.test_domain import an_order

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LEASE = timedelta(seconds=15)
DAY = timedelta(days=1)
UNDONE = [Step.AUTHORIZE_PAYMENT, Step.BOOK_SLOT, Step.RESERVE_STOCK]
#: What a saga executes when no payment makes it wait.
TO_CONFIRMATION = [Step.RESERVE_STOCK, Step.BOOK_SLOT, Step.AUTHORIZE_PAYMENT, Step.CONFIRM_RESERVATION]
BEFORE_PIVOT = [step for step in Step if not step.is_past_pivot]
PAST_PIVOT = [step for step in Step if step.is_past_pivot]
DEADLINE = NOW + timedelta(minutes=15)


def a_saga(**changes):
    return Saga(**{"id": "saga-1", "order_id": "order-1", "next_attempt_time": NOW, "deadline": DEADLINE, **changes})


def walk(saga, *results):
    """Return the saga after its steps had these results, and the steps that were executed."""
    executed = []
    for result in results:
        executed.append((saga.state, saga.step))
        saga = saga.claimed(NOW, LEASE).advanced(result, NOW, 0.5)
    return saga, executed


def test_a_saga_awaits_its_shipment_after_four_steps():
    saga, executed = walk(a_saga(), *[Done()] * 4)
    assert [step for _, step in executed] == TO_CONFIRMATION
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


def test_a_refused_shipment_parks_the_saga():
    saga, _ = walk(a_saga(step=Step.CREATE_SHIPMENT), Refused("SHIPMENT_ID_TAKEN"))
    assert (saga.state, saga.step, saga.reason) == (SagaState.PARKED, Step.CREATE_SHIPMENT, "SHIPMENT_ID_TAKEN")
    with pytest.raises(OrderNotCancellable):
        saga.cancelled(NOW, "CHANGED_MIND", "", "shipment-1")


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
    done = TO_CONFIRMATION[:position]
    assert undone == [step for step in UNDONE if step in done]
    assert saga.state is SagaState.COMPENSATED
    assert saga.reason == "NO"


def test_a_step_with_an_unknown_outcome_is_repeated_and_not_compensated():
    saga, _ = walk(a_saga(), Done(), Done(), Unknown("UNAVAILABLE"))
    assert (saga.state, saga.step) == (SagaState.RUNNING, Step.AUTHORIZE_PAYMENT)
    assert saga.next_attempt_time > NOW


@pytest.mark.parametrize("step", PAST_PIVOT)
def test_a_step_past_the_pivot_without_an_answer_is_repeated_for_ever(step):
    saga, _ = walk(a_saga(step=step, deadline=NOW), *[Unknown("UNAVAILABLE")] * 500)
    assert (saga.state, saga.step) == (SagaState.RUNNING, step)


def test_a_compensation_without_an_answer_is_repeated_for_ever():
    back = a_saga(state=SagaState.COMPENSATING, step=Step.BOOK_SLOT, deadline=NOW)
    saga, _ = walk(back, *[Unknown("RESOURCE_EXHAUSTED")] * 500)
    assert (saga.state, saga.step) == (SagaState.COMPENSATING, Step.BOOK_SLOT)


@pytest.mark.parametrize("result", [Unknown("UNAVAILABLE"), Pending(NOW - timedelta(hours=1))], ids=repr)
@pytest.mark.parametrize("step", TO_CONFIRMATION)
def test_a_step_without_an_answer_is_repeated_until_the_deadline_and_then_undone(step, result):
    saga, _ = walk(a_saga(step=step), *[result] * 100)
    assert saga.state is SagaState.RUNNING
    assert saga.next_attempt_time <= DEADLINE
    late = saga.claimed(DEADLINE, LEASE).advanced(result, DEADLINE, 0.5)
    undone = next(one for one in UNDONE if one.position <= step.position)
    assert (late.state, late.step, late.reason) == (SagaState.COMPENSATING, undone, "ORDER_EXPIRED")


def test_a_step_done_after_the_deadline_counts():
    saga = a_saga(step=Step.AUTHORIZE_PAYMENT).claimed(DEADLINE, LEASE).advanced(Done(), DEADLINE, 0.5)
    assert (saga.state, saga.step) == (SagaState.RUNNING, Step.CONFIRM_RESERVATION)


def test_a_pending_authorization_waits_for_its_event_or_the_next_poll():
    saga, executed = walk(a_saga(step=Step.AUTHORIZE_PAYMENT), Pending(), Pending(), Done(), Done())
    assert [step for _, step in executed] == [
        Step.AUTHORIZE_PAYMENT,
        Step.AWAIT_PAYMENT,
        Step.AWAIT_PAYMENT,
        Step.CONFIRM_RESERVATION,
    ]
    assert saga.is_awaiting_shipment


def test_the_deadline_of_an_order_is_not_before_that_of_its_payment():
    slip = NOW + timedelta(days=2)
    saga, _ = walk(a_saga(step=Step.AUTHORIZE_PAYMENT), Pending(slip), Pending(slip))
    assert saga.step is Step.AWAIT_PAYMENT
    assert saga.deadline > slip


def test_the_polls_of_a_pending_payment_become_rare():
    saga, _ = walk(a_saga(step=Step.AWAIT_PAYMENT), *[Pending(NOW + timedelta(days=2))] * 20)
    assert NOW + timedelta(minutes=2) <= saga.next_attempt_time <= NOW + timedelta(minutes=5)


def test_a_payment_event_wakes_a_saga_that_waits_for_it_and_no_other():
    waiting, _ = walk(a_saga(step=Step.AUTHORIZE_PAYMENT), Pending())
    assert waiting.next_attempt_time > NOW
    assert waiting.woken(NOW).next_attempt_time == NOW
    assert waiting.claimed(NOW, LEASE).woken(NOW).version == waiting.version + 2  # the poll in progress is fenced off
    capturing, _ = walk(a_saga(step=Step.CAPTURE_PAYMENT), Pending())
    assert capturing.woken(NOW).next_attempt_time == NOW
    in_progress = capturing.claimed(NOW, LEASE)
    assert in_progress.woken(NOW) is in_progress
    for step in set(Step) - {Step.AWAIT_PAYMENT, Step.CAPTURE_PAYMENT}:
        other = a_saga(step=step)
        assert other.woken(NOW) is other


def test_a_declined_order_waits_for_another_payment_method_until_its_deadline_if_it_asked_to():
    saga, _ = walk(a_saga(step=Step.AUTHORIZE_PAYMENT, keep_on_decline=True), Refused("INSUFFICIENT_FUNDS"))
    assert (saga.state, saga.step, saga.reason) == (
        SagaState.RUNNING,
        Step.AWAIT_PAYMENT_METHOD,
        "INSUFFICIENT_FUNDS",
    )
    assert saga.next_attempt_time == DEADLINE
    again, executed = walk(saga.paying_again(NOW), Done(), Done())
    assert [step for _, step in executed] == [Step.AUTHORIZE_PAYMENT, Step.CONFIRM_RESERVATION]
    assert (again.is_awaiting_shipment, again.reason) == (True, "")
    with pytest.raises(OrderNotPayable):
        saga.paying_again(DEADLINE)
    given_up = saga.claimed(DEADLINE, LEASE).advanced(Refused(saga.reason), DEADLINE, 0.5)
    assert (given_up.state, given_up.reason) == (SagaState.COMPENSATING, "INSUFFICIENT_FUNDS")


def test_no_other_saga_takes_another_payment():
    for saga in (a_saga(), a_saga(step=Step.AWAIT_PAYMENT), a_saga(state=SagaState.COMPENSATING)):
        with pytest.raises(OrderNotPayable):
            saga.paying_again(NOW)


def test_a_confirmed_order_that_is_not_shipped_in_time_is_undone():
    saga = (
        a_saga(step=Step.CONFIRM_RESERVATION)
        .claimed(NOW, LEASE)
        .advanced(Done(), NOW, 0.5, domain_saga.Waits(shipment=60 * DAY))
    )
    assert saga.next_attempt_time == NOW + timedelta(days=60)
    late, _ = walk(saga, Refused("NOT_SHIPPED_IN_TIME"))
    assert (late.state, late.step, late.reason) == (
        SagaState.COMPENSATING,
        Step.AUTHORIZE_PAYMENT,
        "NOT_SHIPPED_IN_TIME",
    )


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


@pytest.mark.parametrize("step", TO_CONFIRMATION)
def test_a_cancelled_order_goes_backwards_when_the_step_in_progress_has_no_answer(step):
    cancelling = a_saga(step=step).claimed(NOW, LEASE).cancelled(NOW, "CHANGED_MIND", "", "")
    back = cancelling.advanced(Unknown("UNAVAILABLE"), NOW, 0.5)
    undone = next(one for one in UNDONE if one.position <= step.position)
    assert (back.state, back.step, back.reason) == (SagaState.COMPENSATING, undone, "CHANGED_MIND")


@pytest.mark.parametrize("step", BEFORE_PIVOT)
def test_an_order_whose_step_pauses_is_cancelled_at_once(step):
    saga, _ = walk(a_saga(step=step), Unknown("UNAVAILABLE"))
    back = saga.cancelled(NOW, "CHANGED_MIND", "", "")
    undone = next(one for one in UNDONE if one.position <= step.position)
    assert (back.state, back.step, back.next_attempt_time) == (SagaState.COMPENSATING, undone, NOW)


def test_the_first_cancellation_counts():
    cancelling = a_saga().claimed(NOW, LEASE).cancelled(NOW, "FIRST", "", "")
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
    saga, _ = walk(a_saga(), Done(), Done(), Unknown("UNAVAILABLE"))
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
    assert claimed.executing


@pytest.mark.parametrize("result", [Done(), Refused("NO"), Unknown("UNAVAILABLE"), Pending()], ids=repr)
def test_each_result_of_each_step_ends_the_claim(result):
    forth = [a_saga(step=step, attempts=attempts) for step in Step for attempts in (1, 12)]
    back = [
        a_saga(state=SagaState.COMPENSATING, step=step, attempts=attempts) for step in UNDONE for attempts in (1, 12)
    ]
    for saga in (*forth, *back):
        assert saga.advanced(result, NOW, 0.5).version > saga.version


def test_the_pause_between_attempts_doubles_up_to_a_minute():
    pauses = []
    saga = a_saga()
    for _ in range(11):
        saga = saga.claimed(NOW, LEASE).advanced(Unknown("UNAVAILABLE"), NOW, 1.0)
        pauses.append((saga.next_attempt_time - NOW).total_seconds())
    assert pauses == [0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60, 60, 60]
    assert saga.state is SagaState.RUNNING
    spread = a_saga().claimed(NOW, LEASE).advanced(Unknown("UNAVAILABLE"), NOW, 0.0)
    assert spread.next_attempt_time - NOW == timedelta(milliseconds=200)


def test_the_pause_is_at_least_what_the_participant_demands_and_at_most_a_minute():
    for demanded, pause in ((timedelta(seconds=20), timedelta(seconds=20)), (timedelta(hours=1), timedelta(minutes=1))):
        saga = a_saga().claimed(NOW, LEASE).advanced(Unknown("OVERLOADED", demanded), NOW, 0.5)
        assert saga.next_attempt_time == NOW + pause


def test_a_pending_step_is_called_again_after_a_second():
    claimed = a_saga(step=Step.CAPTURE_PAYMENT).claimed(NOW, LEASE).advanced(Pending(), NOW, 1.0)
    assert (claimed.next_attempt_time, claimed.executing) == (NOW + timedelta(seconds=1), False)


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


def test_a_cancellation_of_a_saga_parked_before_the_pivot_compensates_at_once():
    parked = a_saga(step=Step.BOOK_SLOT).parked("UNAVAILABLE")
    back = parked.cancelled(NOW, "CHANGED_MIND", "", "")
    assert (back.state, back.step, back.parked_from) == (SagaState.COMPENSATING, Step.BOOK_SLOT, None)


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
    parked = a_saga(step=Step.CAPTURE_PAYMENT).advanced(Refused("PAYMENT_DECLINED"), NOW, 0.5)
    assert (parked.state, parked.reason) == (SagaState.PARKED, "PAYMENT_DECLINED")
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
        for saga in (a_saga(step=step), a_saga(step=step).parked("UNAVAILABLE")):
            with pytest.raises(SagaStateConflict):
                saga.compensated_by_operator(NOW, "no")
    for step in (Step.CREATE_SHIPMENT, Step.AWAIT_PICKUP):
        back, executed = walk(a_saga(step=step).compensated_by_operator(NOW, "lost"), *[Done()] * 4)
        assert [one for _, one in executed] == [Step.CREATE_SHIPMENT, *UNDONE]
        assert back.state is SagaState.COMPENSATED
    waiting = a_saga(step=Step.AWAIT_SHIPMENT).compensated_by_operator(NOW, "the shelf fell")
    assert (waiting.state, waiting.step) == (SagaState.COMPENSATING, Step.AUTHORIZE_PAYMENT)
    parked = a_saga(step=Step.BOOK_SLOT).parked("UNAVAILABLE").compensated_by_operator(NOW, "no")
    assert parked.parked_from is None


def test_an_order_is_shippable_from_its_confirmation_on_unless_its_saga_compensates():
    shippable = {step for step in Step if a_saga(step=step).is_shippable}
    assert shippable == {Step.AWAIT_SHIPMENT, *PAST_PIVOT}
    assert a_saga(state=SagaState.DONE, step=Step.FULFILL_RESERVATION).is_shippable
    assert not a_saga(state=SagaState.PARKED, step=Step.AWAIT_SHIPMENT).is_shippable
    for state in (SagaState.COMPENSATING, SagaState.COMPENSATED):
        assert not any(a_saga(state=state, step=step).is_shippable for step in UNDONE)
    cancelling = a_saga(step=Step.AWAIT_PICKUP).compensated_by_operator(NOW, "lost")
    assert not cancelling.is_shippable
    assert not cancelling.parked("SHIPMENT_STATE_CONFLICT").is_shippable


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
    cancelling = a_saga(step=Step.AWAIT_PICKUP).compensated_by_operator(NOW, "lost")
    for saga in (cancelling, cancelling.parked("SHIPMENT_STATE_CONFLICT")):
        departed = saga.departed(NOW)  # the courier was faster
        assert (departed.state, departed.step) == (SagaState.RUNNING, Step.CAPTURE_PAYMENT)
    compensating = a_saga(state=SagaState.COMPENSATING, step=Step.AUTHORIZE_PAYMENT)
    done = a_saga(state=SagaState.DONE, step=Step.FULFILL_RESERVATION)
    for saga in (a_saga(), compensating, compensating.parked("UNAVAILABLE"), done):
        assert saga.departed(NOW) is saga


@pytest.mark.parametrize("state", State)
def test_an_order_is_cancelled_only_before_it_is_shipped(state):
    saga, order = a_saga(step=Step.AWAIT_SHIPMENT), an_order(state=state)
    if state in (State.PENDING, State.CONFIRMED):
        assert domain_progress.cancel(order, saga, NOW, "CHANGED_MIND", "").state is SagaState.COMPENSATING
    else:
        with pytest.raises(OrderNotCancellable) as error:
            domain_progress.cancel(order, saga, NOW, "CHANGED_MIND", "")
        assert error.value.metadata["state"] == state.name


def test_each_completed_step_changes_the_order():
    def after(order, step, result=Done(), state=SagaState.RUNNING):  # noqa: B008  frozen
        return domain_progress.after_step(order, a_saga(state=state), step, result, NOW)

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
    ended = domain_progress.after_step(order, saga, Step.RESERVE_STOCK, Done(), NOW)
    assert (ended.state, ended.state_reason, ended.state_message) == (
        State.CANCELLED,
        "COMPENSATED_BY_OPERATOR",
        "the shelf fell",
    )
    assert (ended.payment_state, ended.fulfillment_state) == (Payment.UNPAID, Fulfillment.UNFULFILLED)


def test_a_compensated_saga_rejects_its_order_or_cancels_it_when_that_was_requested():
    order = an_order()
    saga, _ = walk(a_saga(), Refused("INSUFFICIENT_STOCK"))
    rejected = domain_progress.after_step(order, saga, Step.RESERVE_STOCK, Refused("INSUFFICIENT_STOCK"), NOW)
    assert (rejected.state, rejected.state_reason) == (State.REJECTED, "INSUFFICIENT_STOCK")
    cancelling = a_saga().claimed(NOW, LEASE).cancelled(NOW, "CHANGED_MIND", "", "")
    cancelling = cancelling.advanced(Refused("INSUFFICIENT_STOCK"), NOW, 0.5)
    cancelled = domain_progress.after_step(order, cancelling, Step.RESERVE_STOCK, Refused("INSUFFICIENT_STOCK"), NOW)
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
        order = domain_progress.after_step(order, saga, step, result, NOW)
        assert saga.version > before.version
    if order.state is State.CONFIRMED:
        assert held - {Step.AWAIT_PAYMENT} >= set(TO_CONFIRMATION) - {Step.AUTHORIZE_PAYMENT}
        assert held & {Step.AWAIT_PAYMENT, Step.AUTHORIZE_PAYMENT}
    if saga.state is SagaState.COMPENSATED:
        assert order.state in (State.REJECTED, State.CANCELLED)
        assert not held & set(UNDONE)


def test_a_saga_of_a_confirmed_order_waits_for_others_only_in_time():
    waits = domain_saga.Waits(shipment=60 * DAY, pickup=14 * DAY)
    confirmed = a_saga(step=Step.CONFIRM_RESERVATION).advanced(Done(), NOW, 0.0, waits)
    assert (confirmed.step, confirmed.next_attempt_time) == (Step.AWAIT_SHIPMENT, NOW + 60 * DAY)
    created = a_saga(step=Step.CREATE_SHIPMENT).advanced(Done(), NOW, 0.0, waits)
    assert (created.step, created.next_attempt_time) == (Step.AWAIT_PICKUP, NOW + 14 * DAY)
    back = created.without_shipment(NOW, waits)
    assert (back.step, back.next_attempt_time) == (Step.AWAIT_SHIPMENT, NOW + 60 * DAY)
    late = created.advanced(Pending(), NOW, 0.0, waits)
    assert (late.step, late.state) == (Step.AWAIT_PICKUP, SagaState.RUNNING)
    assert NOW < late.next_attempt_time < NOW + DAY
