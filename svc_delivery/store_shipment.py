"""Reads and writes shipments and their histories as domain objects."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime

from chassis import Record, Transaction
from shop.delivery.v1.delivery_errors import ShipmentIdTaken, ShipmentNotFound
from svc_delivery.domain_shipment import Shipment, State
from svc_delivery.store import sql


async def insert_shipment(tx: Transaction, shipment: Shipment, actor: str) -> bool:
    """Write a new shipment; return False when its id exists or its order has one that can still arrive."""
    fresh = await tx.fetchval(
        sql.insert_shipment,
        shipment.id,
        shipment.order_id,
        shipment.user_id,
        shipment.state.name,
        shipment.shipping_address,
        shipment.slot_id,
        shipment.weight_grams,
        shipment.version,
        shipment.create_time,
    )
    if fresh:
        await _insert_updates(tx, [shipment], actor)
    return bool(fresh)


async def read_shipment(tx: Transaction, shipment_id: str) -> Shipment:
    """Return a shipment; raises ShipmentNotFound."""
    found = await read_shipments(tx, [shipment_id])
    if not found:
        raise ShipmentNotFound(shipment_id=shipment_id)
    return found[0]


async def read_shipments(tx: Transaction, ids: Collection[str]) -> list[Shipment]:
    """Return the shipments that exist."""
    return [shipment_from_row(row) for row in await tx.fetch(sql.read_shipments, list(ids))]


async def read_shipment_of(tx: Transaction, order_id: str, shipment_id: str) -> Shipment:
    """Return the shipment of an order; raises ShipmentIdTaken unless it has this id."""
    row = await tx.fetchrow(sql.read_shipment_of, order_id, shipment_id)
    if row is None:
        raise ShipmentIdTaken(shipment_id=shipment_id)
    return shipment_from_row(row)


async def lock_shipment(tx: Transaction, shipment_id: str) -> Shipment:
    """Return a shipment, locked against every other change until this transaction ends; raises ShipmentNotFound."""
    row = await tx.fetchrow(sql.lock_shipment, shipment_id)
    if row is None:
        raise ShipmentNotFound(shipment_id=shipment_id)
    return shipment_from_row(row)


async def update_shipment(tx: Transaction, before: Shipment, revisions: Sequence[Shipment], actor: str) -> None:
    """Write the last revision of a shipment that was locked, and to its history the transitions that `actor` made."""
    if not revisions:
        return
    after = revisions[-1]
    await tx.execute(
        sql.update_shipment,
        after.id,
        after.state.name,
        after.consignment_id,
        after.tracking_number,
        after.courier_version,
        after.version,
        after.update_time,
        after.picked_up,
        after.cancel_actor,
        after.cancel_reason,
        after.courier_id,
    )
    await _insert_updates(tx, [revision for revision in revisions if revision.version > before.version], actor)


async def list_shipments(
    tx: Transaction, *, user_id: str, order_id: str, state: str, before: tuple[datetime, str], limit: int
) -> list[Shipment]:
    """Return shipments before a (create time, id), newest first; an empty user, order or state stands for any.

    A user's are their own, and those that they deliver.
    """
    rows = await tx.fetch(sql.list_shipments, user_id, order_id, state, *before, limit)
    return [shipment_from_row(row) for row in rows]


async def read_updates(tx: Transaction, shipments: Sequence[Shipment]) -> dict[str, list[Record]]:
    """Return the histories of some shipments, by id."""
    updates: defaultdict[str, list[Record]] = defaultdict(list)
    for row in await tx.fetch(sql.read_updates, [shipment.id for shipment in shipments]):
        updates[row["shipment_id"]].append(row)
    return updates


async def _insert_updates(tx: Transaction, revisions: Sequence[Shipment], actor: str) -> None:
    if revisions:
        await tx.execute(
            sql.insert_updates,
            revisions[0].id,
            [revision.version for revision in revisions],
            [revision.state.name for revision in revisions],
            [revision.reason for revision in revisions],
            actor,
            revisions[0].update_time,
        )


def shipment_from_row(row: Record) -> Shipment:
    """Return the shipment that a row of `shipment` holds."""
    return Shipment(
        id=row["shipment_id"],
        order_id=row["order_id"],
        user_id=row["user_id"],
        shipping_address=row["shipping_address"],
        slot_id=row["slot_id"],
        weight_grams=row["weight_grams"],
        create_time=row["create_time"],
        update_time=row["update_time"],
        state=State[row["state"]],
        consignment_id=row["consignment_id"],
        tracking_number=row["tracking_number"],
        courier_version=row["courier_version"],
        picked_up=row["picked_up"],
        cancel_actor=row["cancel_actor"],
        cancel_reason=row["cancel_reason"],
        courier_id=row["courier_id"],
        version=row["version"],
    )
