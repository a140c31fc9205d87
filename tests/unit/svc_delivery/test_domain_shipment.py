"""Where a shipment may go, and what it makes of the courier's news."""

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop.delivery.v1.delivery_errors import ShipmentStateConflict
from svc_delivery.domain_shipment import MOVES, Report, Shipment, State, hear, move, refuse, road, shipment_id

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
LATER = datetime(2026, 11, 20, 13, tzinfo=UTC)
ROAD = (
    State.CREATED,
    State.LABELLED,
    State.PICKED_UP,
    State.IN_TRANSIT,
    State.OUT_FOR_DELIVERY,
    State.DELIVERED,
)
LEGAL = {
    *pairwise(ROAD),
    *((state, State.FAILED) for state in ROAD[:-1]),
    (State.FAILED, State.IN_TRANSIT),
    (State.FAILED, State.RETURNED),
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


def a_report(*states, consignment_id="c-1"):
    return Report(consignment_id=consignment_id, tracking_number="T1", version=len(states), states=states)


@pytest.mark.parametrize("to", State)
@pytest.mark.parametrize("here", State)
def test_a_shipment_moves_only_where_its_state_leads(here, to):
    before = a_shipment(here)
    if here is to:
        assert move(before, to, "said", LATER) is before
    elif (here, to) in LEGAL:
        after = move(before, to, "said", LATER)
        assert (after.state, after.note, after.version, after.update_time) == (to, "said", 2, LATER)
    else:
        with pytest.raises(ShipmentStateConflict):
            move(before, to, "", LATER)


@pytest.mark.parametrize("there", State)
@pytest.mark.parametrize("here", State)
def test_a_road_is_made_of_legal_moves_and_ends_where_it_leads(here, there):
    steps = road(here, there)
    assert all(pair in LEGAL for pair in pairwise((here, *steps)))
    if steps:
        assert steps[-1] is there


@pytest.mark.parametrize(
    ("here", "there"),
    [(late, early) for number, early in enumerate(ROAD) for late in ROAD[number + 1 :]]
    + [(state, other) for state in (State.DELIVERED, State.RETURNED) for other in State],
)
def test_no_road_leads_back_or_on_from_the_end(here, there):
    assert road(here, there) == ()


def test_nothing_leads_on_from_delivered_and_returned():
    assert {state for state in State if not MOVES[state]} == {State.DELIVERED, State.RETURNED}


def test_the_first_news_labels_a_shipment():
    known, labelled = hear(a_shipment(), a_report(State.LABELLED), LATER)
    assert (known.version, known.consignment_id, known.tracking_number) == (1, "c-1", "T1")
    assert (labelled.state, labelled.version, labelled.courier_version) == (State.LABELLED, 2, 1)


def test_news_that_overtook_others_makes_up_for_them():
    stages = hear(a_shipment(), a_report(State.LABELLED, State.PICKED_UP, State.IN_TRANSIT), LATER)
    assert [stage.state for stage in stages] == list(ROAD[:4])


def test_old_news_and_news_of_another_parcel_change_nothing():
    shipment = a_shipment(State.PICKED_UP, consignment_id="c-1", courier_version=2)
    assert hear(shipment, a_report(State.LABELLED), LATER) == ()
    assert hear(shipment, a_report(State.LABELLED, State.PICKED_UP), LATER) == ()
    other = a_report(State.LABELLED, State.PICKED_UP, State.IN_TRANSIT, consignment_id="c-2")
    assert hear(shipment, other, LATER) == ()


def test_news_of_a_parcel_that_was_moved_on_by_hand_never_moves_it_back():
    shipment = a_shipment(State.OUT_FOR_DELIVERY, consignment_id="c-1", courier_version=1)
    (known,) = hear(shipment, a_report(State.LABELLED, State.PICKED_UP), LATER)
    assert (known.state, known.courier_version) == (State.OUT_FOR_DELIVERY, 2)


def test_a_parcel_can_fail_and_take_the_road_again():
    told = (State.LABELLED, State.PICKED_UP, State.FAILED, State.IN_TRANSIT, State.OUT_FOR_DELIVERY, State.FAILED)
    stages = hear(a_shipment(), a_report(*told), LATER)
    assert [stage.state for stage in stages[1:]] == list(told)


def test_a_parcel_that_comes_back_without_a_word_has_failed_first():
    stages = hear(a_shipment(State.LABELLED), a_report(State.RETURNED), LATER)
    assert [stage.state for stage in stages[1:]] == [State.FAILED, State.RETURNED]


def test_a_refusal_fails_a_shipment_that_nobody_has_moved():
    refused = refuse(a_shipment(), "not taken", LATER)
    assert (refused.state, refused.note) == (State.FAILED, "not taken")
    moved = a_shipment(State.PICKED_UP)
    assert refuse(moved, "not taken", LATER) is moved


def test_the_shipment_of_an_order_always_has_the_same_name_and_no_other_order_has_it():
    names = [shipment_id(f"order-{number}") for number in range(100)]
    assert names == [shipment_id(f"order-{number}") for number in range(100)]
    assert len(set(names)) == 100
    assert shipment_id("o" * 64) != shipment_id("o" * 63)
    assert len(shipment_id("o" * 64)) <= 64


def walks():
    """Every way that a courier can move a parcel, as the lists of its moves."""

    def onwards(walk):
        return st.sampled_from(sorted(MOVES[walk[-1]], key=lambda state: state.name)).map(lambda to: (*walk, to))

    def longer(walk, left):
        return (
            st.just(walk) if not left or not MOVES[walk[-1]] else onwards(walk).flatmap(lambda w: longer(w, left - 1))
        )

    return st.integers(0, 8).flatmap(lambda steps: longer((State.LABELLED,), steps))


@given(walks(), st.data())
def test_news_in_any_order_and_any_number_leads_where_the_courier_is(walk, data):
    reports = [a_report(*walk[:count]) for count in range(1, len(walk) + 1)]
    heard = data.draw(st.permutations([*reports, *data.draw(st.lists(st.sampled_from(reports), max_size=5))]))
    shipment, path = a_shipment(), [State.CREATED]
    for report in heard:
        stages = hear(shipment, report, LATER)
        path += [after.state for earlier, after in pairwise((shipment, *stages)) if after.version > earlier.version]
        shipment = stages[-1] if stages else shipment
    assert path == [State.CREATED, *walk]
    assert (shipment.state, shipment.version) == (walk[-1], len(path))
