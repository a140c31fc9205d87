"""Converts the domain objects of svc_inventory to messages and events, and watchers' resume tokens back."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from google.protobuf.message import Message

from chassis import Record, timestamp
from shop.inventory.v1 import inventory_events_pb2 as events
from shop.inventory.v1 import inventory_service_pb2 as pb
from svc_inventory.domain import Level
from svc_inventory.domain_adjustment import Adjust, Adjustment, AdjustmentReason
from svc_inventory.domain_reservation import Allocation, Reservation, State
from svc_inventory.store import level_from_row


def stock_to_proto(sku: str, levels: Iterable[Level]) -> pb.Stock:
    """Return a SKU's stock as shoppers see it."""
    locations = [pb.LocationStock(location_id=level.location_id, available=level.available) for level in levels]
    return pb.Stock(sku=sku, available=sum(location.available for location in locations), locations=locations)


def levels_by_sku(levels: Iterable[Level]) -> dict[str, list[Level]]:
    """Group levels, which are sorted by SKU."""
    return {sku: list(group) for sku, group in groupby(levels, key=lambda level: level.sku)}


def level_to_proto(row: Record) -> pb.StockLevel:
    """Return a level with all its counters, for staff."""
    level = level_from_row(row)
    return pb.StockLevel(
        sku=level.sku,
        location_id=level.location_id,
        on_hand=level.on_hand,
        allocated=level.allocated,
        reserved=level.reserved,
        safety_stock=level.safety_stock,
        available=level.available,
        etag=level.etag,
        update_time=timestamp(row["update_time"]),
        shortfall=level.shortfall,
    )


def movement_to_proto(row: Record) -> pb.StockMovement:
    """Return one movement."""
    return pb.StockMovement(
        movement_id=str(row["movement_id"]),
        sku=row["sku"],
        location_id=row["location_id"],
        kind=pb.MovementKind.Value(f"MOVEMENT_KIND_{row['kind']}"),
        on_hand_delta=row["on_hand_delta"],
        allocated_delta=row["allocated_delta"],
        reserved_delta=row["reserved_delta"],
        safety_stock_delta=row["safety_stock_delta"],
        reservation_id=row["reservation_id"],
        actor=row["actor"],
        reason=row["reason"],
        create_time=timestamp(row["create_time"]),
        adjustment_reason=pb.AdjustmentReason.Value(f"ADJUSTMENT_REASON_{row['adjustment_reason'] or 'UNSPECIFIED'}"),
        reference=row["reference"],
    )


def adjust_from_proto(request: pb.AdjustStockRequest, actor: str) -> Adjust:
    """Return the command of a request; the ids of different actors never meet."""
    return Adjust(
        adjustment_id=f"{actor}:{request.request_id}",
        lines=tuple(((line.sku, line.location_id), line.delta) for line in request.lines),
        reason=AdjustmentReason[pb.AdjustmentReason.Name(request.reason).removeprefix("ADJUSTMENT_REASON_")],
        reference=request.reference,
        actor=actor,
    )


def adjustment_to_proto(adjustment: Adjustment) -> pb.StockAdjustment:
    """Return an adjustment."""
    return pb.StockAdjustment(
        lines=[
            pb.AdjustmentLine(sku=sku, location_id=location_id, delta=delta)
            for (sku, location_id), delta in adjustment.lines
        ],
        reason=pb.AdjustmentReason.Value(f"ADJUSTMENT_REASON_{adjustment.reason.name}"),
        reference=adjustment.reference,
        actor=adjustment.actor,
        create_time=timestamp(adjustment.create_time),
    )


def reservation_to_proto(reservation: Reservation) -> pb.Reservation:
    """Return a reservation."""
    return pb.Reservation(
        reservation_id=reservation.id,
        order_id=reservation.order_id,
        state=pb.ReservationState.Value(f"RESERVATION_STATE_{reservation.state.name}"),
        allocations=_allocations(reservation.allocations),
        expire_time=timestamp(reservation.expire_time),
        create_time=timestamp(reservation.create_time),
        update_time=timestamp(reservation.update_time),
        etag=str(reservation.version),
    )


def stock_changed_event(level: Level) -> events.StockChanged:
    """Return the event of a level that changed."""
    return events.StockChanged(
        sku=level.sku, location_id=level.location_id, version=level.version, available=level.available
    )


def stock_oversold_event(level: Level) -> events.StockOversold:
    """Return the event of a level whose shortfall has grown."""
    return events.StockOversold(
        sku=level.sku, location_id=level.location_id, version=level.version, shortfall=level.shortfall
    )


def reservation_event(reservation: Reservation, *, is_reduced: bool = False) -> Message:
    """Return the event of a reservation that has reached its state, or was extended or reduced in it."""
    fields: dict[str, Any] = {
        "reservation_id": reservation.id,
        "version": reservation.version,
        "order_id": reservation.order_id,
    }
    if is_reduced:
        return events.ReservationReduced(**fields, allocations=_allocations(reservation.allocations))
    if reservation.state is State.HELD:
        fields["expire_time"] = timestamp(reservation.expire_time)
        if reservation.version > 1:
            return events.ReservationExtended(**fields)
    return _EVENTS[reservation.state](**fields, allocations=_allocations(reservation.allocations))


_EVENTS: dict[State, type[Message]] = {
    State.HELD: events.ReservationHeld,
    State.CONFIRMED: events.ReservationConfirmed,
    State.FULFILLED: events.ReservationFulfilled,
    State.RELEASED: events.ReservationReleased,
    State.EXPIRED: events.ReservationExpired,
}

_VERSION_BYTES = 3  # as many as keep a token of 100 SKUs under its 512 characters


def resume_token(skus: Sequence[str], sent: Mapping[str, int]) -> str:
    """Return a resume token: for each SKU of the request, the low bytes of the version that was last sent."""
    packed = b"".join((sent.get(sku, 0) % (1 << 8 * _VERSION_BYTES)).to_bytes(_VERSION_BYTES, "big") for sku in skus)
    return base64.urlsafe_b64encode(packed).decode()


def versions_from_token(skus: Sequence[str], token: str) -> dict[str, int]:
    """Return the versions that a resume token holds, by SKU; none for a token of other SKUs."""
    packed = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    if len(packed) != _VERSION_BYTES * len(skus):
        return {}
    chunks = (packed[at : at + _VERSION_BYTES] for at in range(0, len(packed), _VERSION_BYTES))
    return {sku: int.from_bytes(chunk, "big") for sku, chunk in zip(skus, chunks, strict=True)}


def stock_version(levels: Iterable[Level]) -> int:
    """Return a number that changes with every change of a SKU's levels."""
    return sum(level.version for level in levels) % (1 << 8 * _VERSION_BYTES)


def _allocations(allocations: Sequence[Allocation]) -> list[pb.Allocation]:
    return [pb.Allocation(sku=one.sku, location_id=one.location_id, quantity=one.quantity) for one in allocations]
