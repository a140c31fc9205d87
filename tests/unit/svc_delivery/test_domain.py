"""Slots and bookings: capacity, cutoff, one booking for an order, and the fold of a batch of commands."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.domain.versioned_rows import VersionedRows
from shop.delivery.v1.delivery_errors import (
    AddressNotServed,
    BookingNotFound,
    BookingReleased,
    SlotAlreadyBooked,
    SlotClosed,
    SlotFull,
    SlotNotFound,
)
from svc_delivery.domain import Book, Booking, Release, Slot, SlotBatch, State
from svc_delivery.domain_zone import Destination

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SERVED, ELSEWHERE = (Destination(country_code="TH", postal_code=code) for code in ("10110", "50000"))


def a_slot(**changes):
    start = NOW + timedelta(days=1)
    values = {
        "id": "s-1",
        "zone_id": "bkk",
        "start_time": start,
        "end_time": start + timedelta(hours=2),
        "cutoff_time": start,
        "capacity": 2,
        "booked": 0,
        "version": 1,
    }
    return Slot(**values | changes)


def a_batch(*slots, now=NOW, tombstones=()):
    return SlotBatch(
        now=now,
        slots=VersionedRows({slot.id: slot for slot in slots or [a_slot()]}),
        bookings=VersionedRows({}),
        tombstones=set(tombstones),
        zones={SERVED: "bkk", ELSEWHERE: "cnx"},
    )


def book(order_id="o-1", slot_id="s-1", destination=SERVED):
    return Book(order_id=order_id, slot_id=slot_id, destination=destination)


def release(order_id="o-1"):
    return Release(order_id=order_id)


def test_a_booking_takes_one_place_and_a_repeat_takes_none():
    batch = a_batch()
    first, second = batch.fold([book(), book()])
    assert isinstance(first, Booking)
    assert second == first
    assert (batch.slots["s-1"].booked, batch.slots["s-1"].version) == (1, 2)


def test_a_release_frees_the_place_once():
    batch = a_batch()
    _, released, again = batch.fold([book(), release(), release()])
    assert (released.state, released.version) == (State.RELEASED, 2)
    assert again == released
    assert batch.slots["s-1"].booked == 0


def test_a_batch_that_books_and_releases_records_both_transitions():
    batch = a_batch()
    batch.fold([book(), release()])
    assert [(one.state, one.version) for one in batch.transitions] == [(State.BOOKED, 1), (State.RELEASED, 2)]


@pytest.mark.parametrize(
    ("batch", "command", "error"),
    [
        (a_batch(), book(slot_id="s-9"), SlotNotFound),
        (a_batch(), book(destination=ELSEWHERE), AddressNotServed),
        (a_batch(), book(destination=Destination(country_code="TH", postal_code="99999")), AddressNotServed),
        (a_batch(a_slot(booked=2)), book(), SlotFull),
        (a_batch(a_slot(cutoff_time=NOW)), book(), SlotClosed),
        (a_batch(tombstones=["o-1"]), book(), BookingReleased),
        (a_batch(), release(), BookingNotFound),
        (a_batch(tombstones=["o-1"]), release(), BookingNotFound),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_an_illegal_command_fails_and_changes_no_row(batch, command, error):
    (outcome,) = batch.fold([command])
    assert isinstance(outcome, error)
    assert (batch.slots.changed(), batch.bookings.changed(), batch.transitions) == ([], [], [])


def test_a_slot_can_be_booked_until_just_before_its_cutoff():
    (outcome,) = a_batch(a_slot(cutoff_time=NOW + timedelta(microseconds=1))).fold([book()])
    assert isinstance(outcome, Booking)


def test_an_order_with_a_booking_gets_no_other_slot():
    batch = a_batch(a_slot(), a_slot(id="s-2"))
    _, other = batch.fold([book(), book(slot_id="s-2")])
    assert isinstance(other, SlotAlreadyBooked)
    assert batch.slots["s-2"].booked == 0


def test_an_order_whose_booking_was_released_cannot_book_again():
    _, _, again = a_batch().fold([book(), release(), book()])
    assert isinstance(again, BookingReleased)


def test_an_order_that_was_released_before_it_booked_never_books():
    batch = a_batch()
    absent, late = batch.fold([release(), book()])
    assert isinstance(absent, BookingNotFound)
    assert isinstance(late, BookingReleased)
    assert batch.new_tombstones == ["o-1"]
    batch.fold([release()])
    assert batch.new_tombstones == ["o-1"]


commands = st.lists(
    st.one_of(
        st.builds(
            book, st.sampled_from("abcdef"), st.sampled_from(["s-1", "s-2"]), st.sampled_from([SERVED, ELSEWHERE])
        ),
        st.builds(release, st.sampled_from("abcdef")),
    ),
    max_size=40,
)


@given(commands)
def test_the_booked_count_is_the_number_of_bookings_and_at_most_the_capacity(requested):
    batch = a_batch(a_slot(), a_slot(id="s-2", capacity=1))
    batch.fold(requested)
    for slot in batch.slots.values():
        booked = [one for one in batch.bookings.values() if one.slot_id == slot.id and one.state is State.BOOKED]
        assert len(booked) == slot.booked <= slot.capacity
    assert not batch.tombstones & {one.order_id for one in batch.bookings.values() if one.state is State.BOOKED}


@given(commands)
def test_each_transition_of_a_booking_has_a_version_of_its_own(requested):
    batch = a_batch(a_slot(), a_slot(id="s-2", capacity=1))
    batch.fold(requested)
    versions = [(one.order_id, one.version) for one in batch.transitions]
    assert len(set(versions)) == len(versions)
    for booking in batch.bookings.values():
        assert [version for order_id, version in versions if order_id == booking.order_id] == list(
            range(1, booking.version + 1)
        )
