"""Stock levels and the ledger of movements behind them. Pure: no I/O, no clock, no proto."""

from dataclasses import dataclass, replace
from enum import Enum

from shop.inventory.v1.inventory_errors import VersionMismatch


class MovementKind(Enum):
    """The kinds of stock movements."""

    RECEIVED = "RECEIVED"
    RESERVED = "RESERVED"
    UNRESERVED = "UNRESERVED"
    EXPIRED = "EXPIRED"
    ALLOCATED = "ALLOCATED"
    RELEASED = "RELEASED"
    SHIPPED = "SHIPPED"
    ADJUSTED = "ADJUSTED"
    REDUCED = "REDUCED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """The counters of one SKU at one location, in units."""

    sku: str
    location_id: str
    on_hand: int = 0
    #: Promised to placed orders.
    allocated: int = 0
    #: Under a hold that can still expire.
    reserved: int = 0
    safety_stock: int = 0
    #: Promised units that a count did not find.
    shortfall: int = 0
    #: Grows by one with every movement.
    version: int = 0

    @property
    def etag(self) -> str:
        """Return what a count is compared with: the counted units alone, which orders do not change until they ship."""
        return f"{self.on_hand}-{self.safety_stock}"

    @property
    def available(self) -> int:
        """Return the units that can be bought now; the only figure that shoppers see."""
        return max(0, self.on_hand - self.allocated - self.reserved - self.safety_stock)


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """One entry of the append-only ledger behind the counters."""

    sku: str
    location_id: str
    kind: MovementKind
    on_hand: int = 0
    allocated: int = 0
    reserved: int = 0
    safety_stock: int = 0
    reservation_id: str = ""
    adjustment_id: str = ""
    #: The user or workload that caused it.
    actor: str = ""
    reason: str = ""

    def applied_to(self, level: Level) -> Level:
        """Return the level after this movement.

        A count may leave a shortfall. A reservation only reduces it: if one would oversell, the database rejects it.
        """
        after = replace(
            level,
            on_hand=level.on_hand + self.on_hand,
            allocated=level.allocated + self.allocated,
            reserved=level.reserved + self.reserved,
            safety_stock=level.safety_stock + self.safety_stock,
            version=level.version + 1,
        )
        missing = max(0, after.allocated + after.reserved - after.on_hand)
        return replace(after, shortfall=min(missing, level.shortfall) if self.reservation_id else missing)


def set_level(
    level: Level | None,
    *,
    sku: str,
    location_id: str,
    on_hand: int,
    safety_stock: int,
    etag: str,
    actor: str,
    reason: str,
) -> tuple[Level, Movement]:
    """Replace what staff counts of a level; `etag` is the level's when it was read, empty for a new level.

    Raises VersionMismatch.
    """
    before = level or Level(sku=sku, location_id=location_id)
    if etag != (level.etag if level else ""):
        raise VersionMismatch(sku=sku, location_id=location_id)
    movement = Movement(
        sku=sku,
        location_id=location_id,
        kind=MovementKind.ADJUSTED if level else MovementKind.RECEIVED,
        on_hand=on_hand - before.on_hand,
        safety_stock=safety_stock - before.safety_stock,
        actor=actor,
        reason=reason,
    )
    return movement.applied_to(before), movement
