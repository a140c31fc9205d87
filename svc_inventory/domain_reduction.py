"""Reductions: a reservation releases units of cancelled lines. Pure: no I/O, no clock, no proto."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from shop.inventory.v1.inventory_errors import ReservationStateConflict
from svc_inventory.domain import Movement, MovementKind
from svc_inventory.domain_reservation import Allocation, Reservation, State, quantities_by_sku

#: The states in which there is nothing left to reduce.
_EMPTY = frozenset({State.RELEASED, State.EXPIRED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduce:
    """A command to reduce a reservation to at most these units; without a line, a SKU keeps none."""

    reservation_id: str
    #: SKU and units; a SKU may occur twice.
    keeps: tuple[tuple[str, int], ...]


def reduced(reservation: Reservation, command: Reduce, now: datetime) -> tuple[Reservation, Sequence[Movement]]:
    """Return the reservation with what it keeps, and the movements of what it releases; itself if that is nothing.

    Raises ReservationStateConflict once its units have left, and when it would keep none: that is a release.
    """
    if reservation.state in _EMPTY:
        return reservation, ()
    left = quantities_by_sku(command.keeps)
    kept: list[Allocation] = []
    released: list[Allocation] = []
    for one in reservation.allocations:
        units = min(one.quantity, left[one.sku])
        left[one.sku] -= units
        if units:
            kept.append(replace(one, quantity=units))
        if units < one.quantity:
            released.append(replace(one, quantity=one.quantity - units))
    if not released:
        return reservation, ()
    if reservation.state is State.FULFILLED or not kept:
        wanted = "REDUCED" if kept else "REDUCED to nothing"
        raise ReservationStateConflict(reservation_id=reservation.id, state=reservation.state.name, wanted=wanted)
    after = replace(reservation, allocations=tuple(kept), update_time=now, version=reservation.version + 1)
    return after, [_movement(reservation, one) for one in released]


def _movement(reservation: Reservation, released: Allocation) -> Movement:
    is_held = reservation.state is State.HELD
    return Movement(
        sku=released.sku,
        location_id=released.location_id,
        kind=MovementKind.REDUCED,
        reserved=-released.quantity if is_held else 0,
        allocated=0 if is_held else -released.quantity,
        reservation_id=reservation.id,
    )
