"""The rows of shipments and of what remains to be done for them; SQL stops here."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta

from chassis import Record, Transaction
from shop.delivery.v1.delivery_errors import ShipmentNotFound
from svc_delivery.domain_shipment import Shipment, State
from svc_delivery.store import sql


async def insert_shipment(tx: Transaction, shipment: Shipment, actor: str) -> bool:
    """Write a new shipment; False when its order has one."""
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
    return _found(await tx.fetchrow(sql.read_shipment, shipment_id), shipment_id)


async def lock_shipment(tx: Transaction, shipment_id: str) -> Shipment:
    """Return a shipment, locked against every other change until this transaction ends; raises ShipmentNotFound."""
    return _found(await tx.fetchrow(sql.lock_shipment, shipment_id), shipment_id)


async def update_shipment(tx: Transaction, before: Shipment, stages: Sequence[Shipment], actor: str) -> None:
    """Write a shipment that was locked, as it is after the last of some stages, and its moves as `actor`'s."""
    if not stages:
        return
    after = stages[-1]
    await tx.execute(
        sql.update_shipment,
        after.id,
        after.state.name,
        after.consignment_id,
        after.tracking_number,
        after.courier_version,
        after.version,
        after.update_time,
    )
    await _insert_updates(tx, [stage for stage in stages if stage.version > before.version], actor)


async def list_shipments(
    tx: Transaction, *, user_id: str, order_id: str, state: str, before: tuple[datetime, str], limit: int
) -> list[Shipment]:
    """Return shipments before a position, newest first; an empty user, order or state stands for any."""
    rows = await tx.fetch(sql.list_shipments, user_id, order_id, state, *before, limit)
    return [_shipment_from_row(row) for row in rows]


async def read_updates(tx: Transaction, shipments: Sequence[Shipment]) -> dict[str, list[Record]]:
    """Return the histories of some shipments, by id."""
    updates: defaultdict[str, list[Record]] = defaultdict(list)
    for row in await tx.fetch(sql.read_updates, [shipment.id for shipment in shipments]):
        updates[row["shipment_id"]].append(row)
    return updates


async def claim_webhook(tx: Transaction, webhook_id: str) -> bool:
    """Tell whether a webhook has not come before, and remember that it came."""
    return bool(await tx.fetchval(sql.claim_webhook, webhook_id))


async def claim_dispatch(tx: Transaction, order_id: str, actor: str, lease: timedelta) -> None:
    """Note that `actor` wants an order shipped; nobody else tries until the lease is over."""
    await tx.execute(sql.claim_dispatch, order_id, actor, lease)


async def claim_due_dispatches(tx: Transaction, lease: timedelta, limit: int) -> list[Record]:
    """Return orders whose shipping was left undone, with `actor` and `attempts`, claimed for the length of a lease."""
    return await tx.fetch(sql.claim_due_dispatches, lease, limit)


async def postpone_dispatch(tx: Transaction, order_id: str, delay: timedelta) -> None:
    """Let an order be tried again after a delay."""
    await tx.execute(sql.postpone_dispatch, order_id, delay)


async def delete_dispatch(tx: Transaction, order_id: str) -> None:
    """Note that nothing remains to be done for an order."""
    await tx.execute(sql.delete_dispatch, order_id)


async def _insert_updates(tx: Transaction, stages: Sequence[Shipment], actor: str) -> None:
    if stages:
        await tx.execute(
            sql.insert_updates,
            stages[0].id,
            [stage.version for stage in stages],
            [stage.state.name for stage in stages],
            [stage.note for stage in stages],
            actor,
            stages[0].update_time,
        )


def _found(row: Record | None, shipment_id: str) -> Shipment:
    if row is None:
        raise ShipmentNotFound(shipment_id=shipment_id)
    return _shipment_from_row(row)


def _shipment_from_row(row: Record) -> Shipment:
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
        version=row["version"],
    )
