"""Shipments: their legal transitions, and what the courier's tracking updates make of them."""

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop.delivery.v1.delivery_errors import ShipmentStateConflict
from svc_delivery.domain_shipment import (
    TRANSITIONS,
    Shipment,
    State,
    TrackingUpdate,
    apply_tracking_update,
    cancel,
    path_between,
    reject,
)

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
LATER = datetime(2026, 11, 20, 13, tzinfo=UTC)
REGULAR_PATH = (
    State.CREATED,
    State.LABELLED,
    State.PICKED_UP,
    State.IN_TRANSIT,
    State.OUT_FOR_DELIVERY,
    State.DELIVERED,
)
LEGAL = {
    *pairwise(REGULAR_PATH),
    *((state, State.FAILED) for state in REGULAR_PATH[:-1]),
    (State.FAILED, State.IN_TRANSIT),
    (State.FAILED, State.RETURNED),
    *((state, State.CANCELLED) for state in (State.CREATED, State.LABELLED, State.FAILED)),
}


def a_shipment(state=State.CREATED, **changes):
    values = {
        "id": "p-1",
        "order_id": "o-1",
        "user_id": "u-1",
        "shipping_address": b"",
        "slot_id": "",
        "weight_grams": 100,
        "create_time": NOW,
        "update_time": NOW,
    }
    return Shipment(state=state, **values | changes)


def an_update(*states, consignment_id="c-1"):
    return TrackingUpdate(consignment_id=consignment_id, tracking_number="T1", version=len(states), states=states)


@pytest.mark.parametrize("to", State)
@pytest.mark.parametrize("start", State)
def test_a_shipment_makes_legal_transitions_only(start, to):
    before = a_shipment(start)
    if start is to:
        assert before.transition_to(to, "why", LATER) is before
    elif (start, to) in LEGAL:
        after = before.transition_to(to, "why", LATER)
        assert (after.state, after.reason, after.version, after.update_time) == (to, "why", 2, LATER)
    else:
        with pytest.raises(ShipmentStateConflict):
            before.transition_to(to, "", LATER)


@pytest.mark.parametrize("end", State)
@pytest.mark.parametrize("start", State)
def test_a_path_is_made_of_legal_transitions_and_ends_at_its_end(start, end):
    steps = path_between(start, end)
    assert all(pair in LEGAL for pair in pairwise((start, *steps)))
    if steps:
        assert steps[-1] is end


@pytest.mark.parametrize("end", REGULAR_PATH)
@pytest.mark.parametrize("start", REGULAR_PATH)
def test_a_path_of_a_parcel_that_has_not_failed_takes_every_regular_step_and_none_back(start, end):
    assert path_between(start, end) == REGULAR_PATH[REGULAR_PATH.index(start) + 1 : REGULAR_PATH.index(end) + 1]


@pytest.mark.parametrize("end", State)
def test_a_parcel_that_failed_resumes_in_transit(end):
    resumed = REGULAR_PATH[REGULAR_PATH.index(State.IN_TRANSIT) :]
    expected = resumed[: resumed.index(end) + 1] if end in resumed else ()
    assert path_between(State.FAILED, end) == ((end,) if end in (State.RETURNED, State.CANCELLED) else expected)


@pytest.mark.parametrize("end", State)
@pytest.mark.parametrize("start", [State.DELIVERED, State.RETURNED, State.CANCELLED])
def test_no_path_leads_on_from_a_final_state(start, end):
    assert path_between(start, end) == ()


def test_delivered_returned_and_cancelled_are_final():
    final = {state for state in State if TRANSITIONS.is_final(state)}
    assert final == {State.DELIVERED, State.RETURNED, State.CANCELLED}


@pytest.mark.parametrize("last", [State.PICKED_UP, State.IN_TRANSIT, State.OUT_FOR_DELIVERY])
def test_a_parcel_that_was_picked_up_is_never_cancelled(last):
    shipment = a_shipment()
    for state in path_between(State.CREATED, last):
        shipment = shipment.transition_to(state, "", NOW)
    failed = shipment.transition_to(State.FAILED, "", NOW)
    for picked_up in (shipment, failed):
        with pytest.raises(ShipmentStateConflict):
            picked_up.transition_to(State.CANCELLED, "", LATER)
        with pytest.raises(ShipmentStateConflict):
            picked_up.with_cancellation_requested("me", "why")
    (known,) = apply_tracking_update(failed, an_update(State.LABELLED, State.CANCELLED), LATER)
    assert known.state is State.FAILED


def test_a_cancellation_ends_when_the_courier_has_no_parcel_or_has_ended_it():
    requested = a_shipment(State.LABELLED).with_cancellation_requested("me", "why")
    assert requested.with_cancellation_requested("you", "because") is requested
    for update in (None, an_update(State.LABELLED, State.CANCELLED), an_update(State.LABELLED, State.FAILED)):
        last = cancel(requested, update, LATER)[-1]
        assert (last.state, last.reason, last.is_cancelling) == (State.CANCELLED, "why", False)
    picked_up = cancel(requested, an_update(State.LABELLED, State.PICKED_UP), LATER)[-1]
    assert (picked_up.state, picked_up.is_cancelling) == (State.PICKED_UP, False)


def test_the_first_update_labels_a_shipment():
    known, labelled = apply_tracking_update(a_shipment(), an_update(State.LABELLED), LATER)
    assert (known.version, known.consignment_id, known.tracking_number) == (1, "c-1", "T1")
    assert (labelled.state, labelled.version, labelled.courier_version) == (State.LABELLED, 2, 1)


def test_an_update_that_overtook_others_makes_up_for_them():
    update = an_update(State.LABELLED, State.PICKED_UP, State.IN_TRANSIT)
    revisions = apply_tracking_update(a_shipment(), update, LATER)
    assert [revision.state for revision in revisions] == list(REGULAR_PATH[:4])


def test_an_outdated_update_or_one_of_another_parcel_changes_nothing():
    shipment = a_shipment(State.PICKED_UP, consignment_id="c-1", courier_version=2)
    assert apply_tracking_update(shipment, an_update(State.LABELLED), LATER) == ()
    assert apply_tracking_update(shipment, an_update(State.LABELLED, State.PICKED_UP), LATER) == ()
    other = an_update(State.LABELLED, State.PICKED_UP, State.IN_TRANSIT, consignment_id="c-2")
    assert apply_tracking_update(shipment, other, LATER) == ()


def test_an_update_never_moves_a_shipment_back_that_staff_has_moved_ahead():
    shipment = a_shipment(State.OUT_FOR_DELIVERY, consignment_id="c-1", courier_version=1)
    (known,) = apply_tracking_update(shipment, an_update(State.LABELLED, State.PICKED_UP), LATER)
    assert (known.state, known.courier_version) == (State.OUT_FOR_DELIVERY, 2)


def test_a_parcel_can_fail_and_be_in_transit_again():
    states = (State.LABELLED, State.PICKED_UP, State.FAILED, State.IN_TRANSIT, State.OUT_FOR_DELIVERY, State.FAILED)
    revisions = apply_tracking_update(a_shipment(), an_update(*states), LATER)
    assert [revision.state for revision in revisions[1:]] == list(states)


def test_a_parcel_that_is_returned_without_a_failure_has_failed_first():
    revisions = apply_tracking_update(a_shipment(State.LABELLED), an_update(State.RETURNED), LATER)
    assert [revision.state for revision in revisions[1:]] == [State.FAILED, State.RETURNED]


def test_a_rejection_fails_a_shipment_unless_it_was_moved():
    rejected = reject(a_shipment(), "not taken", LATER)
    assert (rejected.state, rejected.reason) == (State.FAILED, "not taken")
    moved = a_shipment(State.PICKED_UP)
    assert reject(moved, "not taken", LATER) is moved


def walks():
    """Return every way that a courier can move a parcel, as lists of states; it cancels none that it has had."""

    def onwards(walk):
        possible = [to for to in TRANSITIONS.targets(walk[-1]) if to is not State.CANCELLED or len(walk) == 1]
        targets = sorted(possible, key=lambda state: state.name)
        return st.sampled_from(targets).map(lambda to: (*walk, to))

    def longer(walk, left):
        if not left or TRANSITIONS.is_final(walk[-1]):
            return st.just(walk)
        return onwards(walk).flatmap(lambda walk: longer(walk, left - 1))

    return st.integers(0, 8).flatmap(lambda steps: longer((State.LABELLED,), steps))


@given(walks(), st.data())
def test_updates_in_any_order_and_number_lead_to_the_courier_s_state(walk, data):
    updates = [an_update(*walk[:count]) for count in range(1, len(walk) + 1)]
    arriving = data.draw(st.permutations([*updates, *data.draw(st.lists(st.sampled_from(updates), max_size=5))]))
    shipment, path = a_shipment(), [State.CREATED]
    for update in arriving:
        revisions = apply_tracking_update(shipment, update, LATER)
        path += [after.state for before, after in pairwise((shipment, *revisions)) if after.version > before.version]
        shipment = revisions[-1] if revisions else shipment
    assert path == [State.CREATED, *walk]
    assert (shipment.state, shipment.version) == (walk[-1], len(path))
