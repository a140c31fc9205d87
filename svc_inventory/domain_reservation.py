"""Reservations: which units are promised to which order. Pure: no I/O, no clock, no proto.

`TRANSITIONS` is the life of a reservation, and what each step of it does to the counters of the units it holds.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum

from chassis.domain.transitions import Transitions
from shop.inventory.v1.inventory_errors import ReservationExpired, ReservationIdTaken, ReservationStateConflict
from svc_inventory.domain import MovementKind


class State(Enum):
    """The states of a reservation."""

    HELD = "HELD"
    CONFIRMED = "CONFIRMED"
    FULFILLED = "FULFILLED"
    RELEASED = "RELEASED"
    EXPIRED = "EXPIRED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """Units of one SKU at one location that a reservation holds."""

    sku: str
    location_id: str
    quantity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """An order's claim on stock."""

    id: str
    order_id: str
    allocations: tuple[Allocation, ...]
    expire_time: datetime
    create_time: datetime
    update_time: datetime
    state: State = State.HELD
    version: int = 1

    @property
    def quantities(self) -> Counter[str]:
        """Return the units by SKU."""
        return quantities_by_sku((allocation.sku, allocation.quantity) for allocation in self.allocations)

    @property
    def is_tombstone(self) -> bool:
        """Return whether it was released before it was made: it must never hold anything."""
        return not self.allocations


@dataclass(frozen=True, slots=True)
class Effect:
    """What a transition does to the counters, per unit held: +1, -1 or nothing."""

    kind: MovementKind
    on_hand: int = 0
    allocated: int = 0
    reserved: int = 0


TRANSITIONS: Transitions[State, Effect | None] = Transitions(
    {
        (State.HELD, State.CONFIRMED): Effect(MovementKind.ALLOCATED, reserved=-1, allocated=+1),
        (State.HELD, State.RELEASED): Effect(MovementKind.UNRESERVED, reserved=-1),
        (State.HELD, State.EXPIRED): Effect(MovementKind.EXPIRED, reserved=-1),
        (State.CONFIRMED, State.RELEASED): Effect(MovementKind.RELEASED, allocated=-1),
        (State.CONFIRMED, State.FULFILLED): Effect(MovementKind.SHIPPED, allocated=-1, on_hand=-1),
        # Paid after it expired, while the same units are available again.
        (State.EXPIRED, State.CONFIRMED): Effect(MovementKind.ALLOCATED, allocated=+1),
        # Its units are gone: it can no longer be confirmed by a request that is still under way.
        (State.EXPIRED, State.RELEASED): None,
    }
)

#: The states in which a requested transition to the key has nothing left to do.
_ALREADY_SATISFIED: dict[State, frozenset[State]] = {
    State.CONFIRMED: frozenset({State.CONFIRMED, State.FULFILLED}),
    State.FULFILLED: frozenset({State.FULFILLED}),
    State.RELEASED: frozenset({State.RELEASED}),
    State.EXPIRED: frozenset({State.CONFIRMED, State.FULFILLED, State.RELEASED, State.EXPIRED}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserve:
    """A command to hold stock: all lines or none."""

    reservation_id: str
    order_id: str
    #: SKU and units; a SKU may occur twice.
    lines: tuple[tuple[str, int], ...]
    ttl: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Extend:
    """A command to hold stock for longer: `ttl` from now on."""

    reservation_id: str
    ttl: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A command to move a reservation to another state."""

    reservation_id: str
    to: State


def existing_reservation(reservation: Reservation, command: Reserve) -> Reservation:
    """Return the reservation if the command repeats the one that made it.

    Raises ReservationIdTaken, and ReservationStateConflict when it was released before.
    """
    if reservation.is_tombstone:
        raise ReservationStateConflict(
            reservation_id=reservation.id, state=reservation.state.name, wanted=State.HELD.name
        )
    if (reservation.order_id, reservation.quantities) != (command.order_id, quantities_by_sku(command.lines)):
        raise ReservationIdTaken(reservation_id=reservation.id)
    return reservation


def tombstone(reservation_id: str, now: datetime) -> Reservation:
    """Return the reservation that is released before it is made: a ReserveStock that arrives later finds it."""
    return Reservation(
        id=reservation_id,
        order_id="",
        allocations=(),
        expire_time=now,
        create_time=now,
        update_time=now,
        state=State.RELEASED,
    )


def extended(reservation: Reservation, ttl: timedelta, now: datetime) -> Reservation:
    """Return the reservation with a later expire time, itself when there is nothing to extend.

    Raises ReservationExpired or ReservationStateConflict. A hold past its expire time keeps its units until it is
    expired, so it can still be extended.
    """
    if reservation.state is State.EXPIRED:
        raise ReservationExpired(reservation_id=reservation.id)
    if reservation.state is State.RELEASED:
        raise ReservationStateConflict(
            reservation_id=reservation.id, state=reservation.state.name, wanted=State.HELD.name
        )
    if reservation.state is not State.HELD or now + ttl <= reservation.expire_time:
        return reservation
    return replace(reservation, expire_time=now + ttl, update_time=now, version=reservation.version + 1)


def needs_transition(reservation: Reservation, to: State, now: datetime, *, is_lost: bool = False) -> bool:
    """Return whether the transition is still to be made; raises when it is illegal.

    A hold past its expire time keeps its units until it is expired, so it can still be confirmed. `is_lost` says that
    the units of an expired one are not available any more.
    """
    if reservation.state in _ALREADY_SATISFIED[to]:
        return False
    if to is State.EXPIRED:
        return now >= reservation.expire_time
    if to is State.CONFIRMED and is_lost:
        raise ReservationExpired(reservation_id=reservation.id)
    if not TRANSITIONS.allows(reservation.state, to):
        raise ReservationStateConflict(reservation_id=reservation.id, state=reservation.state.name, wanted=to.name)
    return True


def quantities_by_sku(lines: Iterable[tuple[str, int]]) -> Counter[str]:
    """Return the units of each SKU, summed."""
    total: Counter[str] = Counter()
    for sku, quantity in lines:
        total[sku] += quantity
    return total
