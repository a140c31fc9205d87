"""Stock and reservations: what may be promised to whom. Pure: no I/O, no clock, no proto.

A reservation moves HELD -> CONFIRMED -> FULFILLED; HELD -> RELEASED or EXPIRED; CONFIRMED -> RELEASED.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum

from shop.errors import ShopError
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


class State(Enum):
    """Where a reservation stands."""

    HELD = "HELD"
    CONFIRMED = "CONFIRMED"
    FULFILLED = "FULFILLED"
    RELEASED = "RELEASED"
    EXPIRED = "EXPIRED"


class Kind(Enum):
    """What a movement of stock is."""

    RECEIVED = "RECEIVED"
    RESERVED = "RESERVED"
    UNRESERVED = "UNRESERVED"
    EXPIRED = "EXPIRED"
    ALLOCATED = "ALLOCATED"
    RELEASED = "RELEASED"
    SHIPPED = "SHIPPED"
    ADJUSTED = "ADJUSTED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """The counters of one SKU at one location, in units."""

    sku: str
    location_id: str
    on_hand: int = 0
    #: Promised to placed orders.
    allocated: int = 0
    #: Under a hold that can still lapse.
    reserved: int = 0
    safety_stock: int = 0
    #: Grows by one with every movement.
    version: int = 0

    @property
    def available(self) -> int:
        """Units that can be bought now; the only figure shoppers see."""
        return max(0, self.on_hand - self.allocated - self.reserved - self.safety_stock)


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """One entry of the append-only record behind the counters."""

    sku: str
    location_id: str
    kind: Kind
    on_hand: int = 0
    allocated: int = 0
    reserved: int = 0
    safety_stock: int = 0
    reservation_id: str = ""
    reason: str = ""

    def applied_to(self, level: Level) -> Level:
        """Return the level after this movement."""
        return replace(
            level,
            on_hand=level.on_hand + self.on_hand,
            allocated=level.allocated + self.allocated,
            reserved=level.reserved + self.reserved,
            safety_stock=level.safety_stock + self.safety_stock,
            version=level.version + 1,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """Units of one SKU taken from one location."""

    sku: str
    location_id: str
    quantity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """A claim of an order on stock."""

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
        """Units by SKU."""
        return _sum((allocation.sku, allocation.quantity) for allocation in self.allocations)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserve:
    """Asks to hold stock: all lines or none."""

    reservation_id: str
    order_id: str
    #: SKU and units; a SKU may come twice.
    lines: tuple[tuple[str, int], ...]
    ttl: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Asks to move a reservation to another state."""

    reservation_id: str
    to: State


Command = Reserve | Move


@dataclass(slots=True)
class Shelf:
    """What a batch of commands is folded over: the rows that it read, and what became of them."""

    now: datetime
    levels: dict[tuple[str, str], Level]
    reservations: dict[str, Reservation]
    movements: list[Movement] = field(default_factory=list)
    #: The reservations that are new or moved, as they are now.
    moved: dict[str, Reservation] = field(default_factory=dict)
    #: Each of them after each of its moves, in order.
    moves: list[Reservation] = field(default_factory=list)
    #: Versions as read, by key; what is not in here is new.
    read_versions: dict[tuple[str, str] | str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.read_versions = {
            **{key: level.version for key, level in self.levels.items()},
            **{key: reservation.version for key, reservation in self.reservations.items()},
        }

    def fold(self, commands: Sequence[Command]) -> list[Reservation | ShopError]:
        """Apply each command in order; each is accepted or refused on its own."""
        outcomes: list[Reservation | ShopError] = []
        for command in commands:
            try:
                outcomes.append(self._reserve(command) if isinstance(command, Reserve) else self._move(command))
            except ShopError as refusal:
                outcomes.append(refusal)
        return outcomes

    def changed_levels(self) -> list[Level]:
        """Return the levels that moved, in key order, as they are now."""
        keys = sorted({(movement.sku, movement.location_id) for movement in self.movements})
        return [self.levels[key] for key in keys]

    def _reserve(self, command: Reserve) -> Reservation:
        wanted = _sum(command.lines)
        if known := self.reservations.get(command.reservation_id):
            if known.order_id != command.order_id or known.quantities != wanted:
                raise ReservationIdTaken(reservation_id=known.id)
            return known
        reservation = Reservation(
            id=command.reservation_id,
            order_id=command.order_id,
            allocations=self._allocate(wanted),
            expire_time=self.now + command.ttl,
            create_time=self.now,
            update_time=self.now,
        )
        self._record(reservation, Kind.RESERVED, reserved=+1)
        return reservation

    def _allocate(self, wanted: Counter[str]) -> tuple[Allocation, ...]:
        """Choose locations, or refuse: one that has all of a SKU before several, the fullest first."""
        chosen: list[Allocation] = []
        short: dict[str, int] = {}
        for sku, quantity in sorted(wanted.items()):
            levels = [level for (of, _), level in self.levels.items() if of == sku]
            if not levels:
                raise SkuNotFound(sku=sku)
            available = sum(level.available for level in levels)
            if available < quantity:
                short[sku] = available
                continue
            missing = quantity
            for level in sorted(levels, key=lambda level: (-level.available, level.location_id)):
                taken = min(level.available, missing)
                if taken:
                    chosen.append(Allocation(sku=sku, location_id=level.location_id, quantity=taken))
                    missing -= taken
        if short:
            raise InsufficientStock(available=", ".join(f"{sku}={units}" for sku, units in short.items()))
        return tuple(chosen)

    def _move(self, command: Move) -> Reservation:
        reservation = self.reservations.get(command.reservation_id)
        if reservation is None:
            raise ReservationNotFound(reservation_id=command.reservation_id)
        if not _must_move(reservation, command.to, self.now):
            return reservation
        kind, effect = _EFFECTS[reservation.state, command.to]
        moved = replace(reservation, state=command.to, update_time=self.now, version=reservation.version + 1)
        self._record(moved, kind, **effect)
        return moved

    def _record(self, reservation: Reservation, kind: Kind, **effect: int) -> None:
        """Remember the reservation, and move its units: `effect` is +1 or -1 for each counter."""
        for allocation in reservation.allocations:
            movement = Movement(
                sku=allocation.sku,
                location_id=allocation.location_id,
                kind=kind,
                on_hand=effect.get("on_hand", 0) * allocation.quantity,
                allocated=effect.get("allocated", 0) * allocation.quantity,
                reserved=effect.get("reserved", 0) * allocation.quantity,
                reservation_id=reservation.id,
            )
            key = (allocation.sku, allocation.location_id)
            self.levels[key] = movement.applied_to(self.levels[key])
            self.movements.append(movement)
        self.reservations[reservation.id] = self.moved[reservation.id] = reservation
        self.moves.append(reservation)


#: The legal moves, and what each does to the counters of the units it holds.
_EFFECTS: dict[tuple[State, State], tuple[Kind, dict[str, int]]] = {
    (State.HELD, State.CONFIRMED): (Kind.ALLOCATED, {"reserved": -1, "allocated": +1}),
    (State.HELD, State.RELEASED): (Kind.UNRESERVED, {"reserved": -1}),
    (State.HELD, State.EXPIRED): (Kind.EXPIRED, {"reserved": -1}),
    (State.CONFIRMED, State.RELEASED): (Kind.RELEASED, {"allocated": -1}),
    (State.CONFIRMED, State.FULFILLED): (Kind.SHIPPED, {"allocated": -1, "on_hand": -1}),
}

#: What asks nothing more of a reservation that is there already, or past it.
_SETTLED: dict[State, frozenset[State]] = {
    State.CONFIRMED: frozenset({State.CONFIRMED, State.FULFILLED}),
    State.FULFILLED: frozenset({State.FULFILLED}),
    State.RELEASED: frozenset({State.RELEASED, State.EXPIRED}),
    State.EXPIRED: frozenset({State.CONFIRMED, State.FULFILLED, State.RELEASED, State.EXPIRED}),
}


def _must_move(reservation: Reservation, to: State, now: datetime) -> bool:
    """Tell whether the move has to be made, False when it is done already; raises when it is not legal.

    A hold past its time that nobody has swept still owns its units, so it can be confirmed.
    """
    if reservation.state in _SETTLED[to]:
        return False
    if to is State.EXPIRED:
        return now >= reservation.expire_time
    if to is State.CONFIRMED and reservation.state is State.EXPIRED:
        raise ReservationExpired(reservation_id=reservation.id)
    if (reservation.state, to) not in _EFFECTS:
        raise ReservationStateConflict(reservation_id=reservation.id, state=reservation.state.name, wanted=to.name)
    return True


def set_level(
    level: Level | None, *, sku: str, location_id: str, on_hand: int, safety_stock: int, etag: str, reason: str
) -> tuple[Level, Movement]:
    """Replace a level's countable figures; `etag` is the version it had when it was read, empty for a new one."""
    before = level or Level(sku=sku, location_id=location_id)
    if etag != (str(level.version) if level else ""):
        raise VersionMismatch(sku=sku, location_id=location_id)
    promised = before.allocated + before.reserved
    if on_hand < promised:
        raise StockBelowPromised(sku=sku, location_id=location_id, promised=promised)
    movement = Movement(
        sku=sku,
        location_id=location_id,
        kind=Kind.ADJUSTED if level else Kind.RECEIVED,
        on_hand=on_hand - before.on_hand,
        safety_stock=safety_stock - before.safety_stock,
        reason=reason,
    )
    return movement.applied_to(before), movement


def _sum(lines: Iterable[tuple[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for sku, quantity in lines:
        total[sku] += quantity
    return total
