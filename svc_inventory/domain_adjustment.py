"""Adjustments: units that are added to levels or removed from them, with a reason. Pure: no I/O, no clock, no proto."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from shop.inventory.v1.inventory_errors import SkuNotFound, StockOutOfRange
from svc_inventory.domain import Level, Movement, MovementKind

#: The most units that a level can count.
MAX_ON_HAND = 1_000_000_000


class AdjustmentReason(Enum):
    """Why units are added or removed."""

    RECEIVED = "RECEIVED"
    DAMAGED = "DAMAGED"
    LOST = "LOST"
    RETURNED = "RETURNED"
    CORRECTION = "CORRECTION"
    WRITTEN_OFF = "WRITTEN_OFF"


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjust:
    """A command to add units to levels or remove them: all lines or none."""

    #: The idempotency key, unique among those of all actors.
    adjustment_id: str
    #: (SKU, location) and units; a level may occur twice.
    lines: tuple[tuple[tuple[str, str], int], ...]
    reason: AdjustmentReason
    reference: str
    actor: str

    @property
    def summed(self) -> tuple[tuple[tuple[str, str], int], ...]:
        """Return the lines by level, in key order."""
        total: Counter[tuple[str, str]] = Counter()
        for level, delta in self.lines:
            total[level] += delta
        return tuple((level, delta) for level, delta in sorted(total.items()) if delta)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjustment:
    """An adjustment that was made; it never changes."""

    id: str
    lines: tuple[tuple[tuple[str, str], int], ...]
    reason: AdjustmentReason
    reference: str
    actor: str
    create_time: datetime
    version: int = 1

    def is_of(self, command: Adjust) -> bool:
        """Return whether the command repeats the one that made this adjustment."""
        return (self.lines, self.reason, self.reference) == (command.summed, command.reason, command.reference)


def adjustment_movements(command: Adjust, levels: Mapping[tuple[str, str], Level]) -> Sequence[Movement]:
    """Return the movements of an adjustment; raises SkuNotFound or StockOutOfRange."""
    movements = []
    for (sku, location_id), delta in command.summed:
        level = levels.get((sku, location_id))
        if level is None:
            raise SkuNotFound(sku=sku)
        if not 0 <= level.on_hand + delta <= MAX_ON_HAND:
            raise StockOutOfRange(sku=sku, location_id=location_id, on_hand=level.on_hand + delta)
        received = command.reason is AdjustmentReason.RECEIVED and delta > 0
        movements.append(
            Movement(
                sku=sku,
                location_id=location_id,
                kind=MovementKind.RECEIVED if received else MovementKind.ADJUSTED,
                on_hand=delta,
                adjustment_id=command.adjustment_id,
                actor=command.actor,
            )
        )
    return movements
