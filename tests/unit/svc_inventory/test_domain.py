"""The rules of stock and reservations."""

from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.domain.versioned_rows import VersionedRows
from shop.inventory.v1.inventory_errors import (
    InsufficientStock,
    ReservationExpired,
    ReservationIdTaken,
    ReservationNotFound,
    ReservationStateConflict,
    SkuNotFound,
    StockBelowPromised,
    VersionMismatch,
)
from svc_inventory import domain
from svc_inventory.domain import Level, MovementKind
from svc_inventory.domain_reservation import Allocation, Reservation, Reserve, State, StockBatch, Transition

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def a_batch(*levels, now=NOW, reservations=()):
    return StockBatch(
        now=now,
        levels=VersionedRows({(level.sku, level.location_id): level for level in levels}),
        reservations=VersionedRows({one.id: one for one in reservations}),
    )


def reserve(reservation_id, *lines, order_id="order-1"):
    return Reserve(reservation_id=reservation_id, order_id=order_id, lines=lines, ttl=HOUR)


def transition(reservation_id, to):
    return Transition(reservation_id=reservation_id, to=to)


def test_each_command_of_a_batch_succeeds_or_fails_on_its_own():
    batch = a_batch(Level(sku="a", location_id="bkk", on_hand=3))
    first, second, third = batch.fold([reserve("r-1", ("a", 2)), reserve("r-2", ("a", 2)), reserve("r-3", ("a", 1))])
    assert first.state is third.state is State.HELD
    assert isinstance(second, InsufficientStock)
    assert batch.levels["a", "bkk"].available == 0


def test_safety_stock_is_never_sold():
    batch = a_batch(Level(sku="a", location_id="bkk", on_hand=5, safety_stock=3))
    (outcome,) = batch.fold([reserve("r-1", ("a", 3))])
    assert isinstance(outcome, InsufficientStock)


def test_a_reservation_id_of_another_order_or_other_lines_is_an_error():
    batch = a_batch(Level(sku="a", location_id="bkk", on_hand=9))
    commands = [reserve("r-1", ("a", 1)), reserve("r-1", ("a", 2)), reserve("r-1", ("a", 1), order_id="order-2")]
    first, other_lines, other_order = batch.fold(commands)
    assert isinstance(first, Reservation)
    assert isinstance(other_lines, ReservationIdTaken)
    assert isinstance(other_order, ReservationIdTaken)


def test_a_reservation_created_and_released_in_one_batch_has_both_transitions():
    batch = a_batch(Level(sku="a", location_id="bkk", on_hand=9))
    batch.fold([reserve("r-1", ("a", 1)), transition("r-1", State.RELEASED)])
    assert [(one.state, one.version) for one in batch.transitions] == [(State.HELD, 1), (State.RELEASED, 2)]
    assert batch.reservations["r-1"].state is State.RELEASED
    assert batch.levels["a", "bkk"].available == 9


def test_an_unknown_sku_or_reservation_is_an_error():
    sku, reservation = a_batch().fold([reserve("r-1", ("a", 1)), transition("r-2", State.CONFIRMED)])
    assert isinstance(sku, SkuNotFound)
    assert isinstance(reservation, ReservationNotFound)


LEGAL = {
    (State.HELD, State.CONFIRMED): MovementKind.ALLOCATED,
    (State.HELD, State.RELEASED): MovementKind.UNRESERVED,
    (State.HELD, State.EXPIRED): MovementKind.EXPIRED,
    (State.CONFIRMED, State.RELEASED): MovementKind.RELEASED,
    (State.CONFIRMED, State.FULFILLED): MovementKind.SHIPPED,
}
NOTHING_TO_DO = {
    (State.CONFIRMED, State.CONFIRMED),
    (State.FULFILLED, State.CONFIRMED),
    (State.FULFILLED, State.FULFILLED),
    (State.RELEASED, State.RELEASED),
    (State.EXPIRED, State.RELEASED),
    *((state, State.EXPIRED) for state in State if state is not State.HELD),
}


@pytest.mark.parametrize("to", [state for state in State if state is not State.HELD])
@pytest.mark.parametrize("state", State)
def test_only_legal_transitions_are_made_and_each_changes_its_counters(state, to):
    held = Level(sku="a", location_id="bkk", on_hand=9, reserved=2 * (state is State.HELD))
    level = replace(held, allocated=2 * (state is State.CONFIRMED))
    reservation = Reservation(
        id="r-1",
        order_id="order-1",
        allocations=(Allocation(sku="a", location_id="bkk", quantity=2),),
        expire_time=NOW,
        create_time=NOW,
        update_time=NOW,
        state=state,
    )
    batch = a_batch(level, reservations=[reservation])
    (outcome,) = batch.fold([transition("r-1", to)])
    if (state, to) in LEGAL:
        assert outcome.state is to
        assert [movement.kind for movement in batch.movements] == [LEGAL[state, to]]
    elif (state, to) in NOTHING_TO_DO:
        assert outcome is reservation
        assert not batch.movements
    elif (state, to) == (State.EXPIRED, State.CONFIRMED):
        assert isinstance(outcome, ReservationExpired)
    else:
        assert isinstance(outcome, ReservationStateConflict)


def test_a_hold_does_not_expire_before_its_time_and_is_confirmed_even_after_it():
    batch = a_batch(Level(sku="a", location_id="bkk", on_hand=9))
    batch.fold([reserve("r-1", ("a", 2))])
    early = batch.fold([transition("r-1", State.EXPIRED)])
    assert early[0].state is State.HELD
    batch.now = NOW + HOUR
    assert batch.fold([transition("r-1", State.CONFIRMED)])[0].state is State.CONFIRMED


def test_setting_a_level_requires_its_version_and_the_promised_units():
    level = Level(sku="a", location_id="bkk", on_hand=9, reserved=2, allocated=3, version=4)
    changes = {"sku": "a", "location_id": "bkk", "safety_stock": 0, "reason": "counted"}
    counted, movement = domain.set_level(level, on_hand=5, etag="4", **changes)
    assert (counted.on_hand, counted.version, movement.on_hand, movement.kind) == (5, 5, -4, MovementKind.ADJUSTED)
    with pytest.raises(VersionMismatch):
        domain.set_level(level, on_hand=5, etag="3", **changes)
    with pytest.raises(StockBelowPromised):
        domain.set_level(level, on_hand=4, etag="4", **changes)


COMMANDS = st.lists(
    st.one_of(
        st.builds(
            reserve,
            st.sampled_from(["r-1", "r-2", "r-3", "r-4"]),
            st.tuples(st.sampled_from("ab"), st.integers(1, 4)),
            st.tuples(st.sampled_from("ab"), st.integers(1, 4)),
        ),
        st.builds(
            transition,
            st.sampled_from(["r-1", "r-2", "r-3", "r-4"]),
            st.sampled_from([state for state in State if state is not State.HELD]),
        ),
    ),
    max_size=40,
)


@given(commands=COMMANDS, late=st.booleans())
def test_no_sequence_of_commands_oversells_and_the_counters_are_the_sum_of_the_movements(commands, late):
    start = [Level(sku=sku, location_id=place, on_hand=4) for sku in "ab" for place in ("bkk", "cnx")]
    batch = a_batch(*start, now=NOW + 2 * HOUR if late else NOW)
    batch.fold(commands)
    sums = defaultdict(lambda: [4, 0, 0, 0])
    for movement in batch.movements:
        counters = sums[movement.sku, movement.location_id]
        for at, delta in enumerate((movement.on_hand, movement.allocated, movement.reserved, 1)):
            counters[at] += delta
    for key, level in batch.levels.items():
        assert [level.on_hand, level.allocated, level.reserved, level.version] == sums[key]
        assert level.allocated >= 0
        assert level.reserved >= 0
        assert level.allocated + level.reserved <= level.on_hand
    for sku, place in batch.levels:
        held = sum(
            one.quantity
            for reservation in batch.reservations.values()
            if reservation.state is State.HELD
            for one in reservation.allocations
            if (one.sku, one.location_id) == (sku, place)
        )
        assert batch.levels[sku, place].reserved == held
