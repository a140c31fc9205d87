"""Reads and writes slots and bookings as domain objects; no module but the stores knows SQL."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from chassis import Queries, Record, Transaction, VersionConflict, current_time
from chassis.domain.versioned_rows import VersionedRows
from shop.delivery.v1.delivery_errors import SlotExists
from svc_delivery.domain import Book, Booking, Command, Slot, SlotBatch, SlotTimes, State
from svc_delivery.domain_zone import Destination

sql = Queries(Path(__file__).parent / "queries.sql")


async def insert_slot(tx: Transaction, *, zone_id: str, times: SlotTimes, capacity: int) -> Slot:
    """Write a new slot; raises SlotExists."""
    start, end = times.start_time, times.end_time
    row = await tx.fetchrow(sql.insert_slot, zone_id, start, end, times.cutoff_time, capacity)
    if row is None:
        raise SlotExists(zone_id=zone_id, start_time=start.isoformat(), end_time=end.isoformat())
    return _slot_from_row(row)


async def insert_slots_by_rule(tx: Transaction, now: datetime, days_ahead: int, zone_ids: Sequence[str]) -> None:
    """Write the missing slots of the rules of some zones."""
    await tx.execute(sql.insert_slots_by_rule, now, days_ahead, zone_ids)


async def list_slots(
    tx: Transaction, zone_id: str, *, start: datetime, end: datetime, after: tuple[datetime, str], limit: int
) -> list[Slot]:
    """Return slots that can be booked and start in a span of time, earliest first, after a (start time, id)."""
    return [_slot_from_row(row) for row in await tx.fetch(sql.list_slots, zone_id, start, end, *after, limit)]


async def read_batch(
    tx: Transaction, commands: Sequence[Command], zones: Mapping[Destination, str], *, lock: bool
) -> SlotBatch:
    """Read every row that the commands may change; with `lock`, no other transaction changes the slots until the end.

    `zones` holds the zone of each destination.
    """
    rows = await tx.fetch(sql.read_bookings, [command.order_id for command in commands])
    bookings = {row["order_id"]: _booking_from_row(row) for row in rows if row["slot_id"] is not None}
    slot_ids = {command.slot_id for command in commands if isinstance(command, Book)}
    slot_ids.update(booking.slot_id for booking in bookings.values())
    slots = await tx.fetch(sql.lock_slots if lock else sql.read_slots, sorted(slot_ids))
    return SlotBatch(
        now=await current_time(tx),
        slots=VersionedRows({row["slot_id"]: _slot_from_row(row) for row in slots}),
        bookings=VersionedRows(bookings),
        tombstones={row["order_id"] for row in rows if row["slot_id"] is None},
        zones=zones,
    )


async def write_batch(tx: Transaction, batch: SlotBatch) -> None:
    """Write what the commands changed; raises VersionConflict when a row has changed since it was read."""
    await _update_slots(tx, batch.slots.changed())
    bookings = batch.bookings.changed()
    inserted = [
        (one.order_id, one.slot_id, one.state, one.version) for one, read_version in bookings if not read_version
    ]
    tombstones = [(order_id, None, State.RELEASED, 0) for order_id in batch.new_tombstones]
    await _insert_bookings(tx, [*inserted, *tombstones])
    await _update_bookings(tx, [(one, read_version) for one, read_version in bookings if read_version])


async def _update_slots(tx: Transaction, slots: Sequence[tuple[Slot, int]]) -> None:
    if not slots:
        return
    written = await tx.fetchval(
        sql.update_slots,
        [slot.id for slot, _ in slots],
        [slot.booked for slot, _ in slots],
        [slot.version for slot, _ in slots],
        [read_version for _, read_version in slots],
    )
    if written != len(slots):
        raise VersionConflict


async def _insert_bookings(tx: Transaction, rows: Sequence[tuple[str, str | None, State, int]]) -> None:
    if not rows:
        return
    inserted = await tx.fetchval(
        sql.insert_bookings,
        [order_id for order_id, _, _, _ in rows],
        [slot_id for _, slot_id, _, _ in rows],
        [state.name for _, _, state, _ in rows],
        [version for _, _, _, version in rows],
    )
    if inserted != len(rows):
        raise VersionConflict  # another process inserted a row of the same order: read it and answer with its result


async def _update_bookings(tx: Transaction, bookings: Sequence[tuple[Booking, int]]) -> None:
    if not bookings:
        return
    written = await tx.fetchval(
        sql.update_bookings,
        [one.order_id for one, _ in bookings],
        [one.state.name for one, _ in bookings],
        [one.version for one, _ in bookings],
        [read_version for _, read_version in bookings],
    )
    if written != len(bookings):
        raise VersionConflict


def _slot_from_row(row: Record) -> Slot:
    return Slot(
        id=row["slot_id"],
        zone_id=row["zone_id"],
        start_time=row["start_time"],
        end_time=row["end_time"],
        cutoff_time=row["cutoff_time"],
        capacity=row["capacity"],
        booked=row["booked"],
        version=row["version"],
    )


def _booking_from_row(row: Record) -> Booking:
    return Booking(
        order_id=row["order_id"],
        slot_id=row["slot_id"],
        start_time=row["start_time"],
        end_time=row["end_time"],
        create_time=row["create_time"],
        update_time=row["update_time"],
        state=State[row["state"]],
        version=row["version"],
    )
