"""Slots and bookings: which order has a place in which slot. Pure: no I/O, no clock, no proto."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum

from chassis.domain.transitions import Transitions
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
from shop.errors import ShopError
from svc_delivery.domain_zone import Destination


class State(Enum):
    """The states of a booking."""

    BOOKED = "BOOKED"
    RELEASED = "RELEASED"


#: What each transition does to the places of the slot that are taken.
BOOKING_TRANSITIONS = Transitions({(State.BOOKED, State.RELEASED): -1})


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotTimes:
    """The times of a new slot."""

    start_time: datetime
    end_time: datetime
    #: From then on it cannot be booked.
    cutoff_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A span of time in which parcels are delivered to one zone."""

    id: str
    zone_id: str
    start_time: datetime
    end_time: datetime
    cutoff_time: datetime
    capacity: int
    booked: int
    #: Grows by one with every change of `booked`.
    version: int

    @property
    def available(self) -> int:
        """Return the places that can still be booked."""
        return self.capacity - self.booked


@dataclass(frozen=True, slots=True, kw_only=True)
class Booking:
    """An order's place in a slot."""

    order_id: str
    slot_id: str
    start_time: datetime
    end_time: datetime
    create_time: datetime
    update_time: datetime
    state: State = State.BOOKED
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """A command to book a place in a slot."""

    order_id: str
    slot_id: str
    destination: Destination


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A command to release an order's place."""

    order_id: str


Command = Book | Release


@dataclass(slots=True)
class SlotBatch:
    """The commands of one transaction are folded over this: the rows that it read, and what the commands change."""

    now: datetime
    slots: VersionedRows[str, Slot]
    bookings: VersionedRows[str, Booking]
    #: The orders that were released before they had booked, and never will book.
    tombstones: set[str]
    #: The zone of each destination; one without a zone is not served.
    zones: Mapping[Destination, str]
    #: Each new or changed booking, after each of its transitions, in order.
    transitions: list[Booking] = field(default_factory=list)
    #: The tombstones that this batch adds.
    new_tombstones: list[str] = field(default_factory=list)

    def fold(self, commands: Sequence[Command]) -> list[Booking | ShopError]:
        """Apply each command in order; each succeeds or fails on its own."""
        outcomes: list[Booking | ShopError] = []
        for command in commands:
            try:
                outcomes.append(self._book(command) if isinstance(command, Book) else self._release(command))
            except ShopError as error:
                outcomes.append(error)
        return outcomes

    def _book(self, command: Book) -> Booking:
        if command.order_id in self.tombstones:
            raise BookingReleased(order_id=command.order_id)
        if existing := self.bookings.get(command.order_id):
            return _repeated(existing, command)
        slot = self._bookable_slot(command)
        booking = Booking(
            order_id=command.order_id,
            slot_id=slot.id,
            start_time=slot.start_time,
            end_time=slot.end_time,
            create_time=self.now,
            update_time=self.now,
        )
        return self._record(booking, +1)

    def _bookable_slot(self, command: Book) -> Slot:
        """Return the command's slot; raises unless the order can have a place in it."""
        slot, destination = self.slots.get(command.slot_id), command.destination
        if slot is None:
            raise SlotNotFound(slot_id=command.slot_id)
        if self.zones.get(destination) != slot.zone_id:
            raise AddressNotServed(postal_code=destination.postal_code, country_code=destination.country_code)
        if self.now >= slot.cutoff_time:
            raise SlotClosed(slot_id=slot.id, cutoff_time=slot.cutoff_time.isoformat())
        if not slot.available:
            raise SlotFull(slot_id=slot.id)
        return slot

    def _release(self, command: Release) -> Booking:
        booking = self.bookings.get(command.order_id)
        if booking is None:
            self._add_tombstone(command.order_id)
            raise BookingNotFound(order_id=command.order_id)
        if not BOOKING_TRANSITIONS.allows(booking.state, State.RELEASED):
            return booking
        places = BOOKING_TRANSITIONS.effect(booking.state, State.RELEASED)
        released = replace(booking, state=State.RELEASED, update_time=self.now, version=booking.version + 1)
        return self._record(released, places)

    def _add_tombstone(self, order_id: str) -> None:
        """Keep a request that is still on its way from booking a place that would never be released."""
        if order_id not in self.tombstones:
            self.tombstones.add(order_id)
            self.new_tombstones.append(order_id)

    def _record(self, booking: Booking, places: int) -> Booking:
        """Keep the booking, and add `places` to those of its slot that are taken."""
        slot = self.slots[booking.slot_id]
        self.slots[slot.id] = replace(slot, booked=slot.booked + places, version=slot.version + 1)
        self.bookings[booking.order_id] = booking
        self.transitions.append(booking)
        return booking


def _repeated(existing: Booking, command: Book) -> Booking:
    if existing.state is State.RELEASED:
        raise BookingReleased(order_id=existing.order_id)
    if existing.slot_id != command.slot_id:
        raise SlotAlreadyBooked(order_id=existing.order_id, slot_id=existing.slot_id)
    return existing
