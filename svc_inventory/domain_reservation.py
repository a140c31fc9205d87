"""Reservations: which units are promised to which order. Pure: no I/O, no clock, no proto.

`TRANSITIONS` is the life of a reservation, and what each step of it does to the counters of the units it holds.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum

from chassis.domain.transitions import Transitions
from chassis.domain.versioned_rows import VersionedRows
from shop.errors import ShopError
from shop.inventory.v1.inventory_errors import (
    InsufficientStock,
    ReservationExpired,
    ReservationIdTaken,
    ReservationNotFound,
    ReservationStateConflict,
    SkuNotFound,
)
from svc_inventory.domain import Level, Movement, MovementKind


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
        return _sum((allocation.sku, allocation.quantity) for allocation in self.allocations)


@dataclass(frozen=True, slots=True)
class Effect:
    """What a transition does to the counters, per unit held: +1, -1 or nothing."""

    kind: MovementKind
    on_hand: int = 0
    allocated: int = 0
    reserved: int = 0


TRANSITIONS = Transitions(
    {
        (State.HELD, State.CONFIRMED): Effect(MovementKind.ALLOCATED, reserved=-1, allocated=+1),
        (State.HELD, State.RELEASED): Effect(MovementKind.UNRESERVED, reserved=-1),
        (State.HELD, State.EXPIRED): Effect(MovementKind.EXPIRED, reserved=-1),
        (State.CONFIRMED, State.RELEASED): Effect(MovementKind.RELEASED, allocated=-1),
        (State.CONFIRMED, State.FULFILLED): Effect(MovementKind.SHIPPED, allocated=-1, on_hand=-1),
    }
)

#: The states in which a requested transition to the key has nothing left to do.
_ALREADY_SATISFIED: dict[State, frozenset[State]] = {
    State.CONFIRMED: frozenset({State.CONFIRMED, State.FULFILLED}),
    State.FULFILLED: frozenset({State.FULFILLED}),
    State.RELEASED: frozenset({State.RELEASED, State.EXPIRED}),
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
class Transition:
    """A command to move a reservation to another state."""

    reservation_id: str
    to: State


Command = Reserve | Transition


@dataclass(slots=True)
class StockBatch:
    """The commands of one transaction are folded over this: the rows that it read, and what the commands change."""

    now: datetime
    levels: VersionedRows[tuple[str, str], Level]
    reservations: VersionedRows[str, Reservation]
    movements: list[Movement] = field(default_factory=list)
    #: Each new or changed reservation, after each of its transitions, in order.
    transitions: list[Reservation] = field(default_factory=list)

    def fold(self, commands: Sequence[Command]) -> list[Reservation | ShopError]:
        """Apply each command in order; each succeeds or fails on its own."""
        outcomes: list[Reservation | ShopError] = []
        for command in commands:
            try:
                outcomes.append(self._reserve(command) if isinstance(command, Reserve) else self._transition(command))
            except ShopError as error:
                outcomes.append(error)
        return outcomes

    def _reserve(self, command: Reserve) -> Reservation:
        quantities = _sum(command.lines)
        if existing := self.reservations.get(command.reservation_id):
            if existing.order_id != command.order_id or existing.quantities != quantities:
                raise ReservationIdTaken(reservation_id=existing.id)
            return existing
        reservation = Reservation(
            id=command.reservation_id,
            order_id=command.order_id,
            allocations=self._allocate(quantities),
            expire_time=self.now + command.ttl,
            create_time=self.now,
            update_time=self.now,
        )
        self._record(reservation, Effect(MovementKind.RESERVED, reserved=+1))
        return reservation

    def _allocate(self, quantities: Counter[str]) -> tuple[Allocation, ...]:
        """Choose locations, the fullest first, so that one serves all of a SKU where it can; raises when short."""
        allocations: list[Allocation] = []
        short: dict[str, int] = {}
        for sku, quantity in quantities.items():
            levels = [level for level in self.levels.values() if level.sku == sku]
            if not levels:
                raise SkuNotFound(sku=sku)
            available = sum(level.available for level in levels)
            if available < quantity:
                short[sku] = available
                continue
            missing = quantity
            for level in sorted(levels, key=lambda level: (-level.available, level.location_id)):
                units = min(level.available, missing)
                if units:
                    allocations.append(Allocation(sku=sku, location_id=level.location_id, quantity=units))
                    missing -= units
        if short:
            raise InsufficientStock(available=", ".join(f"{sku}={units}" for sku, units in short.items()))
        return tuple(allocations)

    def _transition(self, command: Transition) -> Reservation:
        reservation = self.reservations.get(command.reservation_id)
        if reservation is None:
            raise ReservationNotFound(reservation_id=command.reservation_id)
        if not _needs_transition(reservation, command.to, self.now):
            return reservation
        changed = replace(reservation, state=command.to, update_time=self.now, version=reservation.version + 1)
        self._record(changed, TRANSITIONS.effect(reservation.state, command.to))
        return changed

    def _record(self, reservation: Reservation, effect: Effect) -> None:
        """Keep the reservation, and apply the effect to the levels of the units that it holds."""
        for allocation in reservation.allocations:
            movement = Movement(
                sku=allocation.sku,
                location_id=allocation.location_id,
                kind=effect.kind,
                on_hand=effect.on_hand * allocation.quantity,
                allocated=effect.allocated * allocation.quantity,
                reserved=effect.reserved * allocation.quantity,
                reservation_id=reservation.id,
            )
            key = (allocation.sku, allocation.location_id)
            self.levels[key] = movement.applied_to(self.levels[key])
            self.movements.append(movement)
        self.reservations[reservation.id] = reservation
        self.transitions.append(reservation)


def _needs_transition(reservation: Reservation, to: State, now: datetime) -> bool:
    """Return whether the transition is still to be made; raises when it is illegal.

    A hold past its expire time keeps its units until it is expired, so it can still be confirmed.
    """
    if reservation.state in _ALREADY_SATISFIED[to]:
        return False
    if to is State.EXPIRED:
        return now >= reservation.expire_time
    if to is State.CONFIRMED and reservation.state is State.EXPIRED:
        raise ReservationExpired(reservation_id=reservation.id)
    if not TRANSITIONS.allows(reservation.state, to):
        raise ReservationStateConflict(reservation_id=reservation.id, state=reservation.state.name, wanted=to.name)
    return True


def _sum(lines: Iterable[tuple[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for sku, quantity in lines:
        total[sku] += quantity
    return total
