"""Reads and writes the rows of svc_inventory as domain objects; no other module of the service knows SQL."""

import json
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

from chassis import Queries, Record, Transaction, current_time
from chassis.domain.versioned_rows import VersionedRows
from shop.inventory.v1.inventory_errors import VersionMismatch
from svc_inventory.domain import Level, Movement
from svc_inventory.domain_adjustment import Adjust, Adjustment, AdjustmentReason
from svc_inventory.domain_batch import Command, StockBatch
from svc_inventory.domain_reservation import Allocation, Reservation, Reserve, State

sql = Queries(Path(__file__).parent / "queries.sql")


async def read_levels(tx: Transaction, skus: Collection[str]) -> list[Level]:
    """Return all levels of some SKUs, by SKU and location."""
    return [level_from_row(row) for row in await tx.fetch(sql.read_levels, list(skus))]


async def list_levels(tx: Transaction, sku: str, *, after: tuple[str], limit: int) -> list[Record]:
    """Return the levels of one SKU after a location, as rows, which hold their update time besides."""
    return await tx.fetch(sql.list_levels, sku, *after, limit)


async def lock_level(tx: Transaction, sku: str, location_id: str) -> Level | None:
    """Return one level, locked against every other change until this transaction ends."""
    row = await tx.fetchrow(sql.lock_level, sku, location_id)
    return level_from_row(row) if row else None


async def write_level(tx: Transaction, level: Level, *, new: bool) -> Record:
    """Write a level that was locked, or insert it; raises VersionMismatch when another transaction inserted it."""
    row = await tx.fetchrow(
        sql.insert_level if new else sql.update_level,
        level.sku,
        level.location_id,
        level.on_hand,
        level.allocated,
        level.reserved,
        level.safety_stock,
        level.shortfall,
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


async def read_batch(tx: Transaction, commands: Sequence[Command], *, lock: bool) -> StockBatch:
    """Read every row that the commands may change; with `lock`, no other transaction changes the levels until the end.

    Rows are locked in key order.
    """
    ids = [command.reservation_id for command in commands if not isinstance(command, Adjust)]
    reservations = await read_reservations(tx, ids) if ids else {}
    skus = {sku for command in commands if isinstance(command, Reserve) for sku, _ in command.lines}
    skus.update(sku for reservation in reservations.values() for sku in reservation.quantities)
    skus.update(sku for command in commands if isinstance(command, Adjust) for (sku, _), _ in command.lines)
    levels = [level_from_row(row) for row in await tx.fetch(sql.lock_levels if lock else sql.read_levels, sorted(skus))]
    return StockBatch(
        now=await current_time(tx),
        levels=VersionedRows({(level.sku, level.location_id): level for level in levels}),
        reservations=VersionedRows(reservations),
        adjustments=VersionedRows(await _read_adjustments(tx, commands)),
    )


async def write_batch(tx: Transaction, batch: StockBatch, actor: str) -> None:
    """Write what the commands changed; it is a conflict when a row has changed since it was read.

    `actor` caused the movements that name no other.
    """
    levels, reservations = batch.levels.changed(), batch.reservations.changed()
    inserted = [one for one, read_version in reservations if not read_version]
    tx.write(sql.update_levels, *(_level_row(level, read_version) for level, read_version in levels))
    tx.write(sql.update_reservations, *(_update_row(one, version) for one, version in reservations if version))
    tx.write(sql.insert_reservations, *map(_insert_row, inserted))
    tx.write(
        sql.insert_allocations,
        *((one.id, part.sku, part.location_id, part.quantity) for one in inserted for part in one.allocations),
    )
    reduced = {reservation_id for reservation_id, _ in batch.reduced}
    await _reduce_allocations(tx, [one for one, version in reservations if version and one.id in reduced])
    tx.write(sql.insert_adjustments, *(_adjustment_row(adjustment) for adjustment, _ in batch.adjustments.changed()))
    await insert_movements(tx, batch.movements, actor)


async def insert_movements(tx: Transaction, movements: Sequence[Movement], actor: str) -> None:
    """Append to the ledger of movements; `actor` caused those that name no other."""
    tx.write(
        sql.insert_movements,
        *(
            (
                movement.sku,
                movement.location_id,
                movement.kind.name,
                movement.on_hand,
                movement.allocated,
                movement.reserved,
                movement.safety_stock,
                movement.reservation_id,
                movement.adjustment_id,
                movement.reason,
                movement.actor or actor,
            )
            for movement in movements
        ),
    )


async def list_expired_holds(tx: Transaction, limit: int) -> list[str]:
    """Return the ids of holds past their expire time, the oldest first."""
    return [row["reservation_id"] for row in await tx.fetch(sql.list_expired_holds, limit)]


async def list_expired_holds_of(tx: Transaction, skus: Sequence[str], limit: int) -> list[str]:
    """Return the ids of holds past their expire time that hold some of these SKUs."""
    return [row["reservation_id"] for row in await tx.fetch(sql.list_expired_holds_of, skus, limit)]


async def list_movements(tx: Transaction, sku: str, *, before: tuple[int], limit: int) -> list[Record]:
    """Return movements of a SKU before one with this id, newest first."""
    return await tx.fetch(sql.list_movements, sku, *before, limit)


async def _reduce_allocations(tx: Transaction, reservations: Sequence[Reservation]) -> None:
    if not reservations:
        return
    lines = [(one.id, allocation) for one in reservations for allocation in one.allocations]
    await tx.execute(
        sql.reduce_allocations,
        [one.id for one in reservations],
        [key for key, _ in lines],
        [allocation.sku for _, allocation in lines],
        [allocation.location_id for _, allocation in lines],
        [allocation.quantity for _, allocation in lines],
    )


async def _read_adjustments(tx: Transaction, commands: Sequence[Command]) -> dict[str, Adjustment]:
    ids = [command.adjustment_id for command in commands if isinstance(command, Adjust)]
    rows = await tx.fetch(sql.read_adjustments, ids) if ids else []
    return {row["adjustment_id"]: _adjustment_from_row(row) for row in rows}


def _level_row(level: Level, read_version: int) -> tuple[object, ...]:
    counts = (level.on_hand, level.allocated, level.reserved, level.shortfall)
    return level.sku, level.location_id, *counts, level.version, read_version


def _insert_row(one: Reservation) -> tuple[object, ...]:
    return one.id, one.order_id, one.state.name, one.expire_time, one.version, one.update_time


def _update_row(one: Reservation, read_version: int) -> tuple[object, ...]:
    return one.id, one.state.name, one.expire_time, one.version, one.update_time, read_version


def _adjustment_row(one: Adjustment) -> tuple[object, ...]:
    lines = json.dumps([[*level, delta] for level, delta in one.lines])
    return one.id, lines, one.reason.name, one.reference, one.actor, one.create_time


def level_from_row(row: Record) -> Level:
    """Return the level that a row of `stock` holds."""
    return Level(
        sku=row["sku"],
        location_id=row["location_id"],
        on_hand=row["on_hand"],
        allocated=row["allocated"],
        reserved=row["reserved"],
        safety_stock=row["safety_stock"],
        shortfall=row["shortfall"],
        version=row["version"],
    )


def _reservation_from_rows(rows: Sequence[Record]) -> Reservation:
    first = rows[0]
    return Reservation(
        id=first["reservation_id"],
        order_id=first["order_id"],
        allocations=tuple(
            Allocation(sku=row["sku"], location_id=row["location_id"], quantity=row["quantity"])
            for row in rows
            if row["sku"] is not None  # a tombstone has none
        ),
        state=State[first["state"]],
        expire_time=first["expire_time"],
        create_time=first["create_time"],
        update_time=first["update_time"],
        version=first["version"],
    )


def _adjustment_from_row(row: Record) -> Adjustment:
    return Adjustment(
        id=row["adjustment_id"],
        lines=tuple(((sku, location_id), delta) for sku, location_id, delta in json.loads(row["lines"])),
        reason=AdjustmentReason[row["reason"]],
        reference=row["reference"],
        actor=row["actor"],
        create_time=row["create_time"],
    )
