"""Zones, slots and bookings: what delivery costs, and whose parcel comes when. Pure: no I/O, no clock, no proto.

A booking moves BOOKED -> RELEASED. The parcels themselves are in domain_shipment.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, time, timedelta
from enum import Enum

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

_GRAMS_PER_KG = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotRule:
    """Makes one slot on some days of every week, by the clocks of its zone."""

    #: 1 is Monday.
    weekdays: tuple[int, ...]
    start: time
    end: time
    #: How long before its beginning a slot closes.
    lead: timedelta
    capacity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff:
    """What delivery costs, in minor units and with tax."""

    currency_code: str
    base_fee: int
    fee_per_kg: int
    tax_rate_basis_points: int

    def fee(self, weight_grams: int) -> int:
        """Return the price of a parcel: the base fee, and so much for each begun kilogram."""
        return self.base_fee + self.fee_per_kg * -(-weight_grams // _GRAMS_PER_KG)


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """A part of the world that is delivered to at one price."""

    id: str
    name: str
    country_code: str
    #: Beginnings of postal codes, as `postal_key` writes them.
    prefixes: tuple[str, ...]
    tariff: Tariff
    time_zone: str
    rules: tuple[SlotRule, ...] = ()


def postal_key(code: str) -> str:
    """Return a postal code, or the beginning of one, as all its spellings have it: SW1A1AA for `sw1a 1aa`."""
    return code.replace(" ", "").replace("-", "").upper()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an order goes, as far as zones care."""

    country_code: str
    postal_code: str


class State(Enum):
    """Where a booking stands."""

    BOOKED = "BOOKED"
    RELEASED = "RELEASED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A span of time in which parcels are brought to one zone."""

    id: str
    zone_id: str
    start_time: datetime
    end_time: datetime
    cutoff_time: datetime
    capacity: int
    booked: int
    version: int

    @property
    def available(self) -> int:
        """Places that can still be booked."""
        return self.capacity - self.booked


@dataclass(frozen=True, slots=True, kw_only=True)
class Booking:
    """The place of an order in a slot."""

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
    """Asks for a place in a slot."""

    order_id: str
    slot_id: str
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Asks to give a place back."""

    order_id: str


Command = Book | Release


@dataclass(slots=True)
class Board:
    """What a batch of commands is folded over: the rows that it read, and what became of them."""

    now: datetime
    slots: dict[str, Slot]
    bookings: dict[str, Booking]
    #: The orders that were released before they had booked, and never will.
    barred: set[str]
    #: The zone of each place; a place without one is not served.
    zones: Mapping[Place, str]
    #: The slots whose places were taken or given back, as they are now.
    changed_slots: dict[str, Slot] = field(default_factory=dict)
    #: The bookings that are new or moved, after each move: a batch may book and release the same one.
    moves: list[Booking] = field(default_factory=list)
    #: The orders that are barred by this batch.
    bars: list[str] = field(default_factory=list)
    #: Versions as read; what is not in here is new.
    read_slots: dict[str, int] = field(init=False)
    read_bookings: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.read_slots = {slot.id: slot.version for slot in self.slots.values()}
        self.read_bookings = {booking.order_id: booking.version for booking in self.bookings.values()}

    def fold(self, commands: Sequence[Command]) -> list[Booking | ShopError]:
        """Apply each command in order; each is accepted or refused on its own."""
        outcomes: list[Booking | ShopError] = []
        for command in commands:
            try:
                outcomes.append(self._book(command) if isinstance(command, Book) else self._release(command))
            except ShopError as refusal:
                outcomes.append(refusal)
        return outcomes

    def _book(self, command: Book) -> Booking:
        if command.order_id in self.barred:
            raise BookingReleased(order_id=command.order_id)
        if known := self.bookings.get(command.order_id):
            return _repeated(known, command)
        slot = self.slots.get(command.slot_id)
        if slot is None:
            raise SlotNotFound(slot_id=command.slot_id)
        if self.zones.get(command.place) != slot.zone_id:
            raise AddressNotServed(postal_code=command.place.postal_code, country_code=command.place.country_code)
        if self.now >= slot.cutoff_time:
            raise SlotClosed(slot_id=slot.id, cutoff_time=slot.cutoff_time.isoformat())
        if not slot.available:
            raise SlotFull(slot_id=slot.id)
        self._take(slot, +1)
        booking = Booking(
            order_id=command.order_id,
            slot_id=slot.id,
            start_time=slot.start_time,
            end_time=slot.end_time,
            create_time=self.now,
            update_time=self.now,
        )
        return self._write(booking)

    def _release(self, command: Release) -> Booking:
        booking = self.bookings.get(command.order_id)
        if booking is None:
            self._bar(command.order_id)
            raise BookingNotFound(order_id=command.order_id)
        if booking.state is State.RELEASED:
            return booking
        self._take(self.slots[booking.slot_id], -1)
        return self._write(replace(booking, state=State.RELEASED, update_time=self.now, version=booking.version + 1))

    def _bar(self, order_id: str) -> None:
        """Keep a request that may still be on its way from booking what nobody would ever release."""
        if order_id not in self.barred:
            self.barred.add(order_id)
            self.bars.append(order_id)

    def _take(self, slot: Slot, places: int) -> None:
        taken = replace(slot, booked=slot.booked + places, version=slot.version + 1)
        self.slots[slot.id] = self.changed_slots[slot.id] = taken

    def _write(self, booking: Booking) -> Booking:
        self.bookings[booking.order_id] = booking
        self.moves.append(booking)
        return booking


def _repeated(known: Booking, command: Book) -> Booking:
    if known.state is State.RELEASED:
        raise BookingReleased(order_id=known.order_id)
    if known.slot_id != command.slot_id:
        raise SlotAlreadyBooked(order_id=known.order_id, slot_id=known.slot_id)
    return known
