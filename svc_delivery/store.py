"""Reads and writes slots and bookings as domain objects; no module but the stores knows SQL."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from chassis import Queries, Record, Transaction, current_time
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
    """Write what the commands changed; it is a conflict when a row has changed since it was read."""
    bookings = batch.bookings.changed()
    tx.write(
        sql.update_slots,
        *((slot.id, slot.booked, slot.version, read_version) for slot, read_version in batch.slots.changed()),
    )
    tx.write(
        sql.update_bookings,
        *(
            (one.order_id, one.state.name, one.version, one.update_time, version)
            for one, version in bookings
            if version
        ),
    )
    tx.write(
        sql.insert_bookings,
        *(
            (one.order_id, one.slot_id, one.state.name, one.version, one.update_time)
            for one, version in bookings
            if not version
        ),
        *((order_id, None, State.RELEASED.name, 0, batch.now) for order_id in batch.new_tombstones),
    )


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
