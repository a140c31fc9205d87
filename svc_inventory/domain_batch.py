"""The commands of one transaction, folded over the rows that it read. Pure: no I/O, no clock, no proto."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from chassis.domain.versioned_rows import VersionedRows
from shop.errors import ShopError
from shop.inventory.v1.inventory_errors import InsufficientStock, ReservationNotFound, SkuNotFound
from svc_inventory.domain import Level, Movement, MovementKind
from svc_inventory.domain_adjustment import Adjust, Adjustment, adjustment_movements
from svc_inventory.domain_reduction import Reduce, reduced
from svc_inventory.domain_reservation import (
    TRANSITIONS,
    Allocation,
    Effect,
    Extend,
    Reservation,
    Reserve,
    State,
    Transition,
    existing_reservation,
    extended,
    needs_transition,
    quantities_by_sku,
    tombstone,
)

Command = Reserve | Extend | Transition | Reduce | Adjust
Outcome = Reservation | Adjustment


@dataclass(slots=True)
class StockBatch:
    """The rows that a transaction read, and what its commands change."""

    now: datetime
    levels: VersionedRows[tuple[str, str], Level]
    reservations: VersionedRows[str, Reservation]
    adjustments: VersionedRows[str, Adjustment]
    movements: list[Movement] = field(default_factory=list)
    #: Each new or changed reservation, after each of its changes, in order.
    transitions: list[Reservation] = field(default_factory=list)
    #: The ids and versions of those among them that were reduced.
    reduced: set[tuple[str, int]] = field(default_factory=set)
    #: Each level whose shortfall has grown, after each such change, in order.
    oversold: list[Level] = field(default_factory=list)
    #: The keys of the levels of each SKU.
    _keys: defaultdict[str, list[tuple[str, str]]] = field(init=False)

    def __post_init__(self) -> None:
        """Group the levels once: each line of each command looks for those of its SKU."""
        self._keys = defaultdict(list)
        for key in self.levels:
            self._keys[key[0]].append(key)

    def fold(self, commands: Sequence[Command]) -> list[Outcome | ShopError]:
        """Apply each command in order; each succeeds or fails on its own."""
        outcomes: list[Outcome | ShopError] = []
        for command in commands:
            try:
                outcomes.append(self._apply(command))
            except ShopError as error:
                outcomes.append(error)
        return outcomes

    def _apply(self, command: Command) -> Outcome:
        match command:
            case Reserve():
                return self._reserve(command)
            case Extend():
                return self._extend(command)
            case Transition():
                return self._transition(command)
            case Reduce():
                return self._reduce(command)
            case Adjust():
                return self._adjust(command)

    def _reserve(self, command: Reserve) -> Reservation:
        if existing := self.reservations.get(command.reservation_id):
            return existing_reservation(existing, command)
        reservation = Reservation(
            id=command.reservation_id,
            order_id=command.order_id,
            allocations=self._allocate(quantities_by_sku(command.lines)),
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
            levels = [self.levels[key] for key in self._keys.get(sku, ())]
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

    def _extend(self, command: Extend) -> Reservation:
        reservation = self.reservations.get(command.reservation_id)
        if reservation is None:
            raise ReservationNotFound(reservation_id=command.reservation_id)
        after = extended(reservation, command.ttl, self.now)
        if after is not reservation:
            self._keep(after)
        return after

    def _transition(self, command: Transition) -> Reservation:
        reservation = self.reservations.get(command.reservation_id)
        if reservation is None:
            if command.to is not State.RELEASED:
                raise ReservationNotFound(reservation_id=command.reservation_id)
            reservation = tombstone(command.reservation_id, self.now)
            self._keep(reservation)
            return reservation
        is_lost = reservation.state is State.EXPIRED and not self._are_available(reservation)
        if not needs_transition(reservation, command.to, self.now, is_lost=is_lost):
            return reservation
        changed = replace(reservation, state=command.to, update_time=self.now, version=reservation.version + 1)
        self._record(changed, TRANSITIONS.effect(reservation.state, command.to))
        return changed

    def _are_available(self, reservation: Reservation) -> bool:
        levels = ((self.levels[one.sku, one.location_id], one.quantity) for one in reservation.allocations)
        return all(level.available >= quantity for level, quantity in levels)

    def _reduce(self, command: Reduce) -> Reservation:
        reservation = self.reservations.get(command.reservation_id)
        if reservation is None:
            raise ReservationNotFound(reservation_id=command.reservation_id)
        after, movements = reduced(reservation, command, self.now)
        if after is not reservation:
            for movement in movements:
                self._move(movement)
            self.reduced.add((after.id, after.version))
            self._keep(after)
        return after

    def _adjust(self, command: Adjust) -> Adjustment:
        if existing := self.adjustments.get(command.adjustment_id):
            return existing
        for movement in adjustment_movements(command, self.levels):
            self._move(movement)
        adjustment = Adjustment(
            id=command.adjustment_id,
            lines=command.summed,
            reason=command.reason,
            reference=command.reference,
            actor=command.actor,
            create_time=self.now,
        )
        self.adjustments[adjustment.id] = adjustment
        return adjustment

    def _record(self, reservation: Reservation, effect: Effect | None) -> None:
        """Keep the reservation, and apply the effect to the levels of the units that it holds."""
        for allocation in reservation.allocations:
            if effect is None:
                break
            movement = Movement(
                sku=allocation.sku,
                location_id=allocation.location_id,
                kind=effect.kind,
                on_hand=effect.on_hand * allocation.quantity,
                allocated=effect.allocated * allocation.quantity,
                reserved=effect.reserved * allocation.quantity,
                reservation_id=reservation.id,
            )
            self._count_shipped(movement)
            self._move(movement)
        self._keep(reservation)

    def _count_shipped(self, movement: Movement) -> None:
        """Correct the count when more units leave than it has: they were there."""
        uncounted = -movement.on_hand - self.levels[movement.sku, movement.location_id].on_hand
        if movement.on_hand and uncounted > 0:
            self._move(
                Movement(
                    sku=movement.sku,
                    location_id=movement.location_id,
                    kind=MovementKind.ADJUSTED,
                    on_hand=uncounted,
                    reason="shipped more than was counted",
                )
            )

    def _move(self, movement: Movement) -> None:
        key = (movement.sku, movement.location_id)
        before, after = self.levels[key], movement.applied_to(self.levels[key])
        self.levels[key] = after
        self.movements.append(movement)
        if after.shortfall > before.shortfall:
            self.oversold.append(after)

    def _keep(self, reservation: Reservation) -> None:
        self.reservations[reservation.id] = reservation
        self.transitions.append(reservation)
