"""The rows of zones, slots and bookings: what the domain knows goes in and comes out; SQL stops here.

Those of shipments are in store_shipment.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from chassis import Queries, Record, Transaction, VersionConflict
from shop.delivery.v1.delivery_errors import PostalPrefixTaken, SlotExists, ZoneIdTaken, ZoneNotFound
from svc_delivery.domain import Board, Book, Booking, Command, Place, Slot, SlotRule, State, Tariff, Zone, postal_key

sql = Queries(Path(__file__).parent / "queries.sql")


async def read_now(tx: Transaction) -> datetime:
    """Return the database's time."""
    now: datetime = await tx.fetchval(sql.read_now)
    return now


async def knows_time_zone(tx: Transaction, name: str) -> bool:
    """Tell whether a time zone exists."""
    return bool(await tx.fetchval(sql.knows_time_zone, name))


async def insert_zone(tx: Transaction, zone: Zone) -> None:
    """Write a new zone; raises ZoneIdTaken or PostalPrefixTaken."""
    fresh = await tx.fetchval(
        sql.insert_zone,
        zone.id,
        zone.name,
        zone.country_code,
        zone.tariff.currency_code,
        zone.tariff.base_fee,
        zone.tariff.fee_per_kg,
        zone.tariff.tax_rate_basis_points,
        zone.time_zone,
    )
    if not fresh:
        raise ZoneIdTaken(zone_id=zone.id)
    place = (zone.id, zone.country_code, zone.prefixes)
    if await tx.fetchval(sql.insert_prefixes, *place) != len(zone.prefixes):
        taken = await tx.fetchrow(sql.read_foreign_prefix, *place)
        assert taken is not None, "the insert met this row"
        raise PostalPrefixTaken(prefix=taken["prefix"], zone_id=taken["zone_id"])
    for position, rule in enumerate(zone.rules):
        await tx.execute(
            sql.insert_rule, zone.id, position, rule.weekdays, rule.start, rule.end, rule.lead, rule.capacity
        )


async def list_zones(tx: Transaction, *, after: str, limit: int) -> list[Zone]:
    """Return zones with ids after a position, in order of id."""
    rows = await tx.fetch(sql.list_zones, after, limit)
    ids = [row["zone_id"] for row in rows]
    prefixes: defaultdict[str, list[str]] = defaultdict(list)
    for row in await tx.fetch(sql.read_prefixes, ids):
        prefixes[row["zone_id"]].append(row["prefix"])
    rules: defaultdict[str, list[SlotRule]] = defaultdict(list)
    for row in await tx.fetch(sql.read_rules, ids):
        rules[row["zone_id"]].append(_rule_from_row(row))
    return [
        Zone(
            id=row["zone_id"],
            name=row["name"],
            country_code=row["country_code"],
            prefixes=tuple(prefixes[row["zone_id"]]),
            tariff=_tariff_from_row(row),
            time_zone=row["time_zone"],
            rules=tuple(rules[row["zone_id"]]),
        )
        for row in rows
    ]


async def read_tariff(tx: Transaction, zone_id: str) -> Tariff:
    """Return what delivery to a zone costs; raises ZoneNotFound."""
    row = await tx.fetchrow(sql.read_zone, zone_id)
    if row is None:
        raise ZoneNotFound(zone_id=zone_id)
    return _tariff_from_row(row)


async def check_zone(tx: Transaction, zone_id: str) -> None:
    """Raise ZoneNotFound unless the zone exists."""
    await read_tariff(tx, zone_id)


async def find_zones(tx: Transaction, places: Sequence[Place]) -> dict[Place, str]:
    """Return the ids of the zones that serve some places."""
    rows = await tx.fetch(
        sql.find_zones, [place.country_code for place in places], [postal_key(place.postal_code) for place in places]
    )
    return {places[row["number"] - 1]: row["zone_id"] for row in rows}


async def insert_slot(
    tx: Transaction, *, zone_id: str, start_time: datetime, end_time: datetime, cutoff_time: datetime, capacity: int
) -> Slot:
    """Write a new slot; raises SlotExists."""
    row = await tx.fetchrow(sql.insert_slot, zone_id, start_time, end_time, cutoff_time, capacity)
    if row is None:
        raise SlotExists(zone_id=zone_id, start_time=start_time.isoformat(), end_time=end_time.isoformat())
    return slot_from_row(row)


async def insert_slots_by_rule(tx: Transaction, now: datetime, days_ahead: int, zone_id: str = "") -> None:
    """Write the slots that the rules of one zone, or of all, ask for and that are missing."""
    await tx.execute(sql.insert_slots_by_rule, now, days_ahead, zone_id)


async def list_slots(
    tx: Transaction, zone_id: str, *, start: datetime, end: datetime, after: tuple[datetime, str], limit: int
) -> list[Slot]:
    """Return slots that can be booked and begin in a span of time, earliest first, after a position."""
    return [slot_from_row(row) for row in await tx.fetch(sql.list_slots, zone_id, start, end, *after, limit)]


async def read_board(tx: Transaction, commands: Sequence[Command]) -> Board:
    """Read every row that the commands may touch."""
    rows = await tx.fetch(sql.read_bookings, [command.order_id for command in commands])
    bookings = [_booking_from_row(row) for row in rows if row["slot_id"] is not None]
    books = [command for command in commands if isinstance(command, Book)]
    slot_ids = {book.slot_id for book in books} | {booking.slot_id for booking in bookings}
    slots = await tx.fetch(sql.read_slots, sorted(slot_ids))
    return Board(
        now=await read_now(tx),
        slots={row["slot_id"]: slot_from_row(row) for row in slots},
        bookings={booking.order_id: booking for booking in bookings},
        barred={row["order_id"] for row in rows if row["slot_id"] is None},
        zones=await find_zones(tx, list({book.place for book in books})) if books else {},
    )


async def write_board(tx: Transaction, board: Board) -> None:
    """Write what the commands changed; raises VersionConflict when another process changed a row meanwhile."""
    slots = list(board.changed_slots.values())
    written = await tx.fetchval(
        sql.update_slots,
        [slot.id for slot in slots],
        [slot.booked for slot in slots],
        [slot.version for slot in slots],
        [board.read_slots[slot.id] for slot in slots],
    )
    if written != len(slots):
        raise VersionConflict
    known = board.read_bookings
    bookings = {booking.order_id: booking for booking in board.moves}.values()
    fresh = [(one.order_id, one.slot_id, one.state, one.version) for one in bookings if one.order_id not in known]
    barred = [(order_id, None, State.RELEASED, 0) for order_id in board.bars]
    await _insert_bookings(tx, [*fresh, *barred])
    await _update_bookings(tx, board, [one for one in bookings if one.order_id in known])


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
        raise VersionConflict  # another process was first to write of the same order: read it and answer with it


async def _update_bookings(tx: Transaction, board: Board, bookings: Sequence[Booking]) -> None:
    if not bookings:
        return
    written = await tx.fetchval(
        sql.update_bookings,
        [one.order_id for one in bookings],
        [one.state.name for one in bookings],
        [one.version for one in bookings],
        [board.read_bookings[one.order_id] for one in bookings],
    )
    if written != len(bookings):
        raise VersionConflict


def _tariff_from_row(row: Record) -> Tariff:
    return Tariff(
        currency_code=row["currency_code"],
        base_fee=row["base_fee"],
        fee_per_kg=row["fee_per_kg"],
        tax_rate_basis_points=row["tax_rate_basis_points"],
    )


def _rule_from_row(row: Record) -> SlotRule:
    return SlotRule(
        weekdays=tuple(row["weekdays"]),
        start=row["start_time"],
        end=row["end_time"],
        lead=row["lead_time"],
        capacity=row["capacity"],
    )


def slot_from_row(row: Record) -> Slot:
    """Return the slot that a row of `slot` holds."""
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
