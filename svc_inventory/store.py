"""The inventory's rows: what the domain knows goes in and comes out; SQL stops here."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from chassis import Queries, Record, Transaction, VersionConflict
from shop.inventory.v1.inventory_errors import VersionMismatch
from svc_inventory.domain import Allocation, Command, Level, Movement, Reservation, Reserve, Shelf, State

sql = Queries(Path(__file__).parent / "queries.sql")


async def read_levels(tx: Transaction, skus: Sequence[str]) -> list[Level]:
    """Return all levels of some SKUs, by SKU and location."""
    return [level_from_row(row) for row in await tx.fetch(sql.read_levels, skus)]


async def list_level_rows(tx: Transaction, sku: str) -> list[Record]:
    """Return the levels of one SKU as rows, which also tell when they last changed."""
    return await tx.fetch(sql.read_levels, [sku])


async def lock_level(tx: Transaction, sku: str, location_id: str) -> Level | None:
    """Return one level, locked against every other change until this transaction ends."""
    row = await tx.fetchrow(sql.lock_level, sku, location_id)
    return level_from_row(row) if row else None


async def write_level(tx: Transaction, level: Level, *, new: bool) -> Record:
    """Write a level that was locked, or insert it; raises VersionMismatch when another inserted it first."""
    row = await tx.fetchrow(
        sql.insert_level if new else sql.update_level,
        level.sku,
        level.location_id,
        level.on_hand,
        level.allocated,
        level.reserved,
        level.safety_stock,
        level.version,
    )
    if row is None:
        raise VersionMismatch(sku=level.sku, location_id=level.location_id)
    return row


async def read_reservations(tx: Transaction, ids: Sequence[str]) -> dict[str, Reservation]:
    """Return the reservations that exist, by id."""
    allocations: defaultdict[str, list[Record]] = defaultdict(list)
    for row in await tx.fetch(sql.read_reservations, ids):
        allocations[row["reservation_id"]].append(row)
    return {key: _reservation_from_rows(rows) for key, rows in allocations.items()}


async def read_shelf(tx: Transaction, commands: Sequence[Command]) -> Shelf:
    """Read every row that the commands may touch."""
    reservations = await read_reservations(tx, [command.reservation_id for command in commands])
    skus = {sku for command in commands if isinstance(command, Reserve) for sku, _ in command.lines}
    skus.update(sku for reservation in reservations.values() for sku in reservation.quantities)
    levels = await read_levels(tx, sorted(skus))
    return Shelf(
        now=await tx.fetchval(sql.read_now),
        levels={(level.sku, level.location_id): level for level in levels},
        reservations=reservations,
    )


async def write_shelf(tx: Transaction, shelf: Shelf, actor: str) -> None:
    """Write what the commands changed; raises VersionConflict when another process changed a row meanwhile."""
    if not shelf.moved:
        return
    levels = shelf.changed_levels()
    written = await tx.fetchval(
        sql.update_levels,
        [level.sku for level in levels],
        [level.location_id for level in levels],
        [level.on_hand for level in levels],
        [level.allocated for level in levels],
        [level.reserved for level in levels],
        [level.version for level in levels],
        [shelf.read_versions[level.sku, level.location_id] for level in levels],
    )
    if written != len(levels):
        raise VersionConflict
    await _insert_reservations(tx, [one for one in shelf.moved.values() if one.id not in shelf.read_versions])
    await _update_reservations(tx, shelf, [one for one in shelf.moved.values() if one.id in shelf.read_versions])
    await insert_movements(tx, shelf.movements, actor)


async def insert_movements(tx: Transaction, movements: Sequence[Movement], actor: str) -> None:
    """Append to the record of movements."""
    await tx.execute(
        sql.insert_movements,
        [movement.sku for movement in movements],
        [movement.location_id for movement in movements],
        [movement.kind.name for movement in movements],
        [movement.on_hand for movement in movements],
        [movement.allocated for movement in movements],
        [movement.reserved for movement in movements],
        [movement.safety_stock for movement in movements],
        [movement.reservation_id for movement in movements],
        [movement.reason for movement in movements],
        actor,
    )


async def list_lapsed(tx: Transaction, limit: int) -> list[str]:
    """Return the ids of holds past their time, the oldest first."""
    return [row["reservation_id"] for row in await tx.fetch(sql.list_lapsed, limit)]


async def list_lapsed_of(tx: Transaction, skus: Sequence[str], limit: int) -> list[str]:
    """Return the ids of holds past their time that hold some of these SKUs."""
    return [row["reservation_id"] for row in await tx.fetch(sql.list_lapsed_of, skus, limit)]


async def list_movements(tx: Transaction, sku: str, *, below: int, limit: int) -> list[Record]:
    """Return movements of a SKU with ids less than `below`, newest first."""
    return await tx.fetch(sql.list_movements, sku, below, limit)


async def _insert_reservations(tx: Transaction, reservations: Sequence[Reservation]) -> None:
    if not reservations:
        return
    inserted = await tx.fetchval(
        sql.insert_reservations,
        [one.id for one in reservations],
        [one.order_id for one in reservations],
        [one.state.name for one in reservations],
        [one.expire_time for one in reservations],
        [one.version for one in reservations],
    )
    if inserted != len(reservations):
        raise VersionConflict  # another process holds the same id: read it and answer with what it did
    lines = [(one.id, allocation) for one in reservations for allocation in one.allocations]
    await tx.execute(
        sql.insert_allocations,
        [key for key, _ in lines],
        [allocation.sku for _, allocation in lines],
        [allocation.location_id for _, allocation in lines],
        [allocation.quantity for _, allocation in lines],
    )


async def _update_reservations(tx: Transaction, shelf: Shelf, reservations: Sequence[Reservation]) -> None:
    if not reservations:
        return
    written = await tx.fetchval(
        sql.update_reservations,
        [one.id for one in reservations],
        [one.state.name for one in reservations],
        [one.version for one in reservations],
        [shelf.read_versions[one.id] for one in reservations],
    )
    if written != len(reservations):
        raise VersionConflict


def level_from_row(row: Record) -> Level:
    """Return the level that a row of `stock` holds."""
    return Level(
        sku=row["sku"],
        location_id=row["location_id"],
        on_hand=row["on_hand"],
        allocated=row["allocated"],
        reserved=row["reserved"],
        safety_stock=row["safety_stock"],
        version=row["version"],
    )


def _reservation_from_rows(rows: Sequence[Record]) -> Reservation:
    first = rows[0]
    return Reservation(
        id=first["reservation_id"],
        order_id=first["order_id"],
        allocations=tuple(
            Allocation(sku=row["sku"], location_id=row["location_id"], quantity=row["quantity"]) for row in rows
        ),
        state=State[first["state"]],
        expire_time=first["expire_time"],
        create_time=first["create_time"],
        update_time=first["update_time"],
        version=first["version"],
    )
