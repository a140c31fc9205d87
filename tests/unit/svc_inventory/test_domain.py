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
    StockOutOfRange,
    VersionMismatch,
)
from svc_inventory import domain
from svc_inventory.domain import Level, MovementKind
from svc_inventory.domain_adjustment import MAX_ON_HAND, Adjust, AdjustmentReason
from svc_inventory.domain_batch import StockBatch
from svc_inventory.domain_reduction import Reduce
from svc_inventory.domain_reservation import Allocation, Extend, Reservation, Reserve, State, Transition

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def a_batch(*levels, now=NOW, reservations=()):
    return StockBatch(
        now=now,
        levels=VersionedRows({(level.sku, level.location_id): level for level in levels}),
        reservations=VersionedRows({one.id: one for one in reservations}),
        adjustments=VersionedRows({}),
    )


def reserve(reservation_id, *lines, order_id="order-1"):
    return Reserve(reservation_id=reservation_id, order_id=order_id, lines=lines, ttl=HOUR)


def adjust(request_id, *lines, reason=AdjustmentReason.CORRECTION, reference=""):
    return Adjust(adjustment_id=request_id, lines=lines, reason=reason, reference=reference, actor="staff-1")


def extend(reservation_id, ttl):
    return Extend(reservation_id=reservation_id, ttl=ttl)


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
    (State.EXPIRED, State.CONFIRMED): MovementKind.ALLOCATED,
    (State.EXPIRED, State.RELEASED): None,
}
NOTHING_TO_DO = {
    (State.CONFIRMED, State.CONFIRMED),
    (State.FULFILLED, State.CONFIRMED),
    (State.FULFILLED, State.FULFILLED),
    (State.RELEASED, State.RELEASED),
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
        assert [movement.kind for movement in batch.movements] == [kind for kind in [LEGAL[state, to]] if kind]
    elif (state, to) in NOTHING_TO_DO:
        assert outcome is reservation
        assert not batch.movements
    else:
        assert isinstance(outcome, ReservationStateConflict)


def test_an_expired_hold_is_confirmed_while_its_units_are_available_and_only_before_a_release():
    batch = a_batch(Level(sku="a", location_id="bkk", on_hand=3))
    batch.fold([reserve("r-1", ("a", 2)), reserve("r-2", ("a", 1))])
    batch.now = NOW + HOUR
    batch.fold([transition("r-1", State.EXPIRED), transition("r-2", State.EXPIRED), reserve("r-3", ("a", 2))])
    lost, regained = batch.fold([transition("r-1", State.CONFIRMED), transition("r-2", State.CONFIRMED)])
    assert isinstance(lost, ReservationExpired)
    assert regained.state is State.CONFIRMED
    level = batch.levels["a", "bkk"]
    assert (level.allocated, level.reserved, level.available) == (1, 2, 0)
    released, late = batch.fold([transition("r-1", State.RELEASED), transition("r-1", State.CONFIRMED)])
    assert released.state is State.RELEASED
    assert isinstance(late, ReservationStateConflict)


def reduce(reservation_id, *keeps):
    return Reduce(reservation_id=reservation_id, keeps=keeps)


@pytest.mark.parametrize("state", [State.HELD, State.CONFIRMED])
def test_a_reduction_releases_the_rest_and_a_late_or_repeated_one_takes_nothing_back(state):
    levels = [Level(sku=sku, location_id="bkk", on_hand=9) for sku in "ab"]
    batch = a_batch(*levels)
    batch.fold([reserve("r-1", ("a", 3), ("b", 2)), *([transition("r-1", state)] if state is not State.HELD else ())])
    commands = [reduce("r-1", ("a", 2), ("b", 2)), reduce("r-1", ("a", 1)), reduce("r-1", ("a", 2), ("b", 2))]
    *_, last = batch.fold([*commands, commands[1]])
    assert [(one.sku, one.quantity) for one in last.allocations] == [("a", 1)]
    assert last.state is state
    counted = [level.reserved if state is State.HELD else level.allocated for level in batch.levels.values()]
    assert counted == [1, 0]
    assert sum(movement.kind is MovementKind.REDUCED for movement in batch.movements) == 3
    assert last.version == 3 + (state is not State.HELD)


def test_a_reduction_takes_units_of_one_location_after_the_other():
    batch = a_batch(*(Level(sku="a", location_id=place, on_hand=2) for place in ("bkk", "cnx")))
    batch.fold([reserve("r-1", ("a", 4))])
    (kept,) = batch.fold([reduce("r-1", ("a", 3))])
    assert sorted(one.quantity for one in kept.allocations) == [1, 2]
    assert sum(level.reserved for level in batch.levels.values()) == 3


def test_what_was_shipped_or_would_keep_nothing_is_not_reduced():
    batch = a_batch(Level(sku="a", location_id="bkk", on_hand=9))
    batch.fold([reserve("r-1", ("a", 2)), reserve("r-2", ("a", 2)), reserve("r-3", ("a", 2))])
    batch.fold(
        [transition("r-1", State.CONFIRMED), transition("r-1", State.FULFILLED), transition("r-2", State.RELEASED)]
    )
    conflict, same, released, empty, absent = batch.fold(
        [
            reduce("r-1", ("a", 1)),
            reduce("r-1", ("a", 2)),
            reduce("r-2", ("a", 1)),
            reduce("r-3", ("b", 1)),
            reduce("r-4", ("a", 1)),
        ]
    )
    assert isinstance(conflict, ReservationStateConflict)
    assert same is batch.reservations["r-1"]
    assert released is batch.reservations["r-2"]
    assert isinstance(empty, ReservationStateConflict)
    assert isinstance(absent, ReservationNotFound)


def test_a_hold_does_not_expire_before_its_time_and_is_confirmed_even_after_it():
    batch = a_batch(Level(sku="a", location_id="bkk", on_hand=9))
    batch.fold([reserve("r-1", ("a", 2))])
    early = batch.fold([transition("r-1", State.EXPIRED)])
    assert early[0].state is State.HELD
    batch.now = NOW + HOUR
    assert batch.fold([transition("r-1", State.CONFIRMED)])[0].state is State.CONFIRMED


def counted(level, on_hand, etag):
    changes = {"sku": "a", "location_id": "bkk", "safety_stock": 0, "actor": "staff-1", "reason": "counted"}
    return domain.set_level(level, on_hand=on_hand, etag=etag, **changes)


def test_a_count_is_compared_with_the_counted_units_and_not_with_what_orders_changed():
    level = Level(sku="a", location_id="bkk", on_hand=9, reserved=2, allocated=3, version=4)
    etag = replace(level, reserved=0, allocated=0, version=1).etag
    after, movement = counted(level, 5, etag)
    assert (after.on_hand, after.version, movement.on_hand, movement.kind) == (5, 5, -4, MovementKind.ADJUSTED)
    for other in (replace(level, on_hand=8), replace(level, safety_stock=1)):
        with pytest.raises(VersionMismatch):
            counted(other, 5, etag)
    with pytest.raises(VersionMismatch):
        counted(level, 5, "")


def test_a_count_below_the_promised_units_leaves_a_shortfall_and_nothing_to_sell():
    level = Level(sku="a", location_id="bkk", on_hand=9, reserved=2, allocated=3, version=4)
    short, _ = counted(level, 1, level.etag)
    assert (short.on_hand, short.shortfall, short.available) == (1, 4, 0)
    (outcome,) = a_batch(short).fold([reserve("r-1", ("a", 1))])
    assert isinstance(outcome, InsufficientStock)
    enough, _ = counted(short, 6, short.etag)
    assert (enough.shortfall, enough.available) == (0, 1)


def a_short_batch(state):
    """Return a batch with a reservation of 4 units, of which a count found 1."""
    held = Level(sku="a", location_id="bkk", on_hand=4)
    batch = a_batch(held)
    batch.fold([reserve("r-1", ("a", 4)), adjust("k-1", (("a", "bkk"), -3)), transition("r-1", state)])
    return batch


def test_a_released_reservation_reduces_the_shortfall():
    level = a_short_batch(State.RELEASED).levels["a", "bkk"]
    assert (level.on_hand, level.shortfall, level.available) == (1, 0, 1)


def test_units_that_leave_although_no_count_found_them_correct_the_count():
    batch = a_short_batch(State.CONFIRMED)
    (fulfilled,) = batch.fold([transition("r-1", State.FULFILLED)])
    level = batch.levels["a", "bkk"]
    assert fulfilled.state is State.FULFILLED
    assert (level.on_hand, level.allocated, level.shortfall) == (0, 0, 0)
    assert [movement.on_hand for movement in batch.movements[-2:]] == [3, -4]


def test_a_growing_shortfall_is_reported_with_the_missing_units():
    batch = a_batch(Level(sku="a", location_id="bkk", on_hand=5, reserved=4))
    batch.fold([adjust("k-1", (("a", "bkk"), -1)), adjust("k-2", (("a", "bkk"), -2)), adjust("k-3", (("a", "bkk"), 1))])
    assert [(level.version, level.shortfall) for level in batch.oversold] == [(2, 2)]


def test_a_movement_of_a_reservation_never_adds_to_the_shortfall():
    """So the database's check rejects it, should it ever oversell."""
    level = Level(sku="a", location_id="bkk", on_hand=1)
    movement = domain.Movement(sku="a", location_id="bkk", kind=MovementKind.RESERVED, reserved=2, reservation_id="r-1")
    assert movement.applied_to(level).shortfall == 0


def test_an_adjustment_sums_its_lines_and_changes_all_levels_or_none():
    levels = [Level(sku="a", location_id=place, on_hand=5) for place in ("bkk", "cnx")]
    batch = a_batch(*levels)
    bkk, cnx = ("a", "bkk"), ("a", "cnx")
    made, none, missing, much = batch.fold(
        [
            adjust("k-1", (cnx, 3), (bkk, -2), (cnx, 1)),
            adjust("k-2", (bkk, 1), (cnx, -10)),
            adjust("k-3", (bkk, 1), (("b", "bkk"), 1)),
            adjust("k-4", (bkk, MAX_ON_HAND)),
        ]
    )
    assert made.lines == ((bkk, -2), (cnx, 4))
    assert [type(one) for one in (none, missing, much)] == [StockOutOfRange, SkuNotFound, StockOutOfRange]
    assert [batch.levels[key].on_hand for key in (bkk, cnx)] == [3, 9]


def test_a_repeated_adjustment_changes_nothing_and_is_not_that_of_another_command_with_its_key():
    batch = a_batch(Level(sku="a", location_id="bkk", on_hand=5))
    line = (("a", "bkk"), 3)
    command = adjust("k-1", line)
    others = [
        adjust("k-1", line, line),
        adjust("k-1", line, reason=AdjustmentReason.LOST),
        adjust("k-1", line, reference="delivery-2"),
    ]
    first, *repeats = batch.fold([command, command, *others])
    assert all(repeat is first for repeat in repeats)
    assert [first.is_of(one) for one in (command, *others)] == [True, False, False, False]
    assert batch.levels["a", "bkk"].on_hand == 8


@pytest.mark.parametrize(
    ("reason", "delta", "kind"),
    [
        (AdjustmentReason.RECEIVED, 1, MovementKind.RECEIVED),
        (AdjustmentReason.RECEIVED, -1, MovementKind.ADJUSTED),
        (AdjustmentReason.RETURNED, 1, MovementKind.ADJUSTED),
    ],
)
def test_goods_that_come_in_are_received_and_other_adjustments_are_not(reason, delta, kind):
    batch = a_batch(Level(sku="a", location_id="bkk", on_hand=5))
    batch.fold([adjust("k-1", (("a", "bkk"), delta), reason=reason)])
    assert [(one.kind, one.adjustment_id, one.actor) for one in batch.movements] == [(kind, "k-1", "staff-1")]


def test_a_release_before_its_reservation_leaves_a_tombstone_that_never_holds():
    batch = a_batch(Level(sku="a", location_id="bkk", on_hand=5))
    released, late, again = batch.fold(
        [transition("r-1", State.RELEASED), reserve("r-1", ("a", 2)), transition("r-1", State.RELEASED)]
    )
    assert (released.state, released.allocations) == (State.RELEASED, ())
    assert isinstance(late, ReservationStateConflict)
    assert again is released
    assert batch.levels["a", "bkk"].available == 5


def test_a_hold_is_extended_from_now_and_never_shortened():
    batch = a_batch(Level(sku="a", location_id="bkk", on_hand=5))
    batch.fold([reserve("r-1", ("a", 2))])
    batch.now = NOW + HOUR / 2
    longer, shorter = batch.fold([extend("r-1", HOUR), extend("r-1", HOUR / 4)])
    assert (longer.expire_time, longer.version, longer.state) == (NOW + 1.5 * HOUR, 2, State.HELD)
    assert shorter is longer
    batch.now = NOW + 3 * HOUR
    assert batch.fold([extend("r-1", HOUR)])[0].expire_time == NOW + 4 * HOUR
    assert len(batch.movements) == 1


def test_only_a_hold_can_be_extended():
    batch = a_batch(Level(sku="a", location_id="bkk", on_hand=9))
    ids = {State.CONFIRMED: "r-1", State.RELEASED: "r-2", State.EXPIRED: "r-3"}
    batch.fold([reserve(key, ("a", 1)) for key in ids.values()])
    batch.now = NOW + HOUR
    batch.fold([transition(key, state) for state, key in ids.items()])
    confirmed, released, expired, unknown = batch.fold([extend(key, HOUR) for key in (*ids.values(), "r-4")])
    assert confirmed is batch.reservations["r-1"]
    assert isinstance(released, ReservationStateConflict)
    assert isinstance(expired, ReservationExpired)
    assert isinstance(unknown, ReservationNotFound)


class CountedRows(VersionedRows):
    """Counts the rows that are looked at."""

    looks = 0

    def __getitem__(self, key):
        self.looks += 1
        return super().__getitem__(key)

    def __iter__(self):
        for key in super().__iter__():
            self.looks += 1
            yield key

    def values(self):
        return [self[key] for key in self]


def looks_of_a_fold(orders, lines):
    skus = [f"s-{number}" for number in range(orders * lines)]
    rows = {(sku, "bkk"): Level(sku=sku, location_id="bkk", on_hand=1) for sku in skus}
    batch = StockBatch(now=NOW, levels=CountedRows(rows), reservations=VersionedRows({}), adjustments=VersionedRows({}))
    commands = [
        reserve(f"r-{order}", *((sku, 1) for sku in skus[order * lines : (order + 1) * lines]))
        for order in range(orders)
    ]
    assert all(isinstance(outcome, Reservation) for outcome in batch.fold(commands))
    return batch.levels.looks


def test_a_fold_looks_at_each_level_a_few_times_however_many_levels_the_batch_has():
    assert looks_of_a_fold(256, 20) <= 5 * 256 * 20


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
        st.builds(
            adjust,
            st.sampled_from(["k-1", "k-2", "k-3", "k-4"]),
            st.tuples(st.tuples(st.sampled_from("ab"), st.sampled_from(["bkk", "cnx"])), st.integers(-4, 4)),
        ),
        st.builds(extend, st.sampled_from(["r-1", "r-2", "r-3", "r-4"]), st.just(HOUR)),
    ),
    max_size=40,
)


@given(commands=COMMANDS, late=st.booleans())
def test_no_sequence_of_commands_oversells_beyond_a_count_and_the_counters_are_the_sum_of_the_movements(commands, late):
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
        assert level.on_hand >= 0
        assert level.shortfall == max(0, level.allocated + level.reserved - level.on_hand)
    for sku, place in batch.levels:
        held = sum(
            one.quantity
            for reservation in batch.reservations.values()
            if reservation.state is State.HELD
            for one in reservation.allocations
            if (one.sku, one.location_id) == (sku, place)
        )
        assert batch.levels[sku, place].reserved == held
