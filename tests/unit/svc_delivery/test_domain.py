"""The rules of zones, slots and bookings."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop.delivery.v1.delivery_errors import (
    AddressNotServed,
    BookingNotFound,
    BookingReleased,
    SlotAlreadyBooked,
    SlotClosed,
    SlotFull,
    SlotNotFound,
)
from svc_delivery.domain import Board, Book, Booking, Place, Release, Slot, State, Tariff, postal_key

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HERE, ELSEWHERE = (Place(country_code="TH", postal_code=code) for code in ("10110", "50000"))


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


def a_board(*slots, now=NOW, barred=()):
    return Board(
        now=now,
        slots={slot.id: slot for slot in slots or [a_slot()]},
        bookings={},
        barred=set(barred),
        zones={HERE: "bkk", ELSEWHERE: "cnx"},
    )


def book(order_id="o-1", slot_id="s-1", place=HERE):
    return Book(order_id=order_id, slot_id=slot_id, place=place)


def release(order_id="o-1"):
    return Release(order_id=order_id)


@pytest.mark.parametrize(
    ("grams", "fee"), [(0, 500), (1, 620), (999, 620), (1000, 620), (1001, 740), (2000, 740), (100_000_000, 12_000_500)]
)
def test_a_fee_is_the_base_and_so_much_for_each_begun_kilogram(grams, fee):
    tariff = Tariff(currency_code="USD", base_fee=500, fee_per_kg=120, tax_rate_basis_points=700)
    assert tariff.fee(grams) == fee


@pytest.mark.parametrize("spelling", ["SW1A1AA", "sw1a 1aa", "SW-1A 1-AA"])
def test_a_postal_code_is_the_same_in_every_spelling(spelling):
    assert postal_key(spelling) == "SW1A1AA"


def test_a_booking_takes_one_place_and_a_repeat_takes_none():
    board = a_board()
    first, second = board.fold([book(), book()])
    assert isinstance(first, Booking)
    assert second == first
    assert (board.slots["s-1"].booked, board.slots["s-1"].version) == (1, 2)


def test_a_release_gives_the_place_back_once():
    board = a_board()
    _, released, again = board.fold([book(), release(), release()])
    assert (released.state, released.version) == (State.RELEASED, 2)
    assert again == released
    assert board.slots["s-1"].booked == 0


def test_a_batch_that_books_and_releases_tells_of_both():
    board = a_board()
    board.fold([book(), release()])
    assert [(move.state, move.version) for move in board.moves] == [(State.BOOKED, 1), (State.RELEASED, 2)]


@pytest.mark.parametrize(
    ("board", "command", "refusal"),
    [
        (a_board(), book(slot_id="s-9"), SlotNotFound),
        (a_board(), book(place=ELSEWHERE), AddressNotServed),
        (a_board(), book(place=Place(country_code="TH", postal_code="99999")), AddressNotServed),
        (a_board(a_slot(booked=2)), book(), SlotFull),
        (a_board(a_slot(cutoff_time=NOW)), book(), SlotClosed),
        (a_board(barred=["o-1"]), book(), BookingReleased),
        (a_board(), release(), BookingNotFound),
        (a_board(barred=["o-1"]), release(), BookingNotFound),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_what_cannot_be_is_refused_and_changes_no_slot(board, command, refusal):
    (outcome,) = board.fold([command])
    assert isinstance(outcome, refusal)
    assert (board.changed_slots, board.moves) == ({}, [])


def test_a_slot_can_be_booked_until_the_very_moment_of_its_cutoff():
    (outcome,) = a_board(a_slot(cutoff_time=NOW + timedelta(microseconds=1))).fold([book()])
    assert isinstance(outcome, Booking)


def test_an_order_with_a_booking_gets_no_other_slot():
    board = a_board(a_slot(), a_slot(id="s-2"))
    _, other = board.fold([book(), book(slot_id="s-2")])
    assert isinstance(other, SlotAlreadyBooked)
    assert board.slots["s-2"].booked == 0


def test_an_order_that_was_released_books_no_more():
    _, _, again = a_board().fold([book(), release(), book()])
    assert isinstance(again, BookingReleased)


def test_an_order_that_was_released_before_it_booked_never_books():
    board = a_board()
    absent, late = board.fold([release(), book()])
    assert isinstance(absent, BookingNotFound)
    assert isinstance(late, BookingReleased)
    assert board.bars == ["o-1"]
    board.fold([release()])
    assert board.bars == ["o-1"]


commands = st.lists(
    st.one_of(
        st.builds(book, st.sampled_from("abcdef"), st.sampled_from(["s-1", "s-2"]), st.sampled_from([HERE, ELSEWHERE])),
        st.builds(release, st.sampled_from("abcdef")),
    ),
    max_size=40,
)


@given(commands)
def test_the_places_taken_are_the_bookings_that_stand_and_never_more_than_there_are(batch):
    board = a_board(a_slot(), a_slot(id="s-2", capacity=1))
    board.fold(batch)
    for slot in board.slots.values():
        standing = [one for one in board.bookings.values() if one.slot_id == slot.id and one.state is State.BOOKED]
        assert len(standing) == slot.booked <= slot.capacity
    assert not board.barred & {one.order_id for one in board.bookings.values() if one.state is State.BOOKED}


@given(commands)
def test_each_move_of_a_booking_has_a_version_of_its_own(batch):
    board = a_board(a_slot(), a_slot(id="s-2", capacity=1))
    board.fold(batch)
    told = [(move.order_id, move.version) for move in board.moves]
    assert len(set(told)) == len(told)
    for booking in board.bookings.values():
        assert [version for order_id, version in told if order_id == booking.order_id] == list(
            range(1, booking.version + 1)
        )
