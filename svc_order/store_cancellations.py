"""Reads and writes cancellations of lines as domain objects. The lock of a cancellation is that of its order."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta

from chassis import Record, Transaction
from shop.order.v1.order_errors import CancellationNotFound
from svc_order import store
from svc_order.domain import Order
from svc_order.domain_cancellation import CancellationState, CancellationStep, CancelledLine, LineCancellation
from svc_order.domain_settlement import RefundDecision
from svc_order.store import sql


async def insert_cancellation(tx: Transaction, one: LineCancellation, actor: str) -> None:
    """Insert a new cancellation with its lines."""
    heading = (one.id, one.order_id, one.state.name, actor, one.message, one.step.value)
    await tx.execute(sql.insert_cancellation, *heading, one.amount, one.next_attempt_time, one.version, one.create_time)
    await tx.execute(
        sql.insert_cancellation_lines,
        one.id,
        [line.sku for line in one.lines],
        [line.name for line in one.lines],
        [line.quantity for line in one.lines],
        [line.unit_price for line in one.lines],
    )


async def update_lines(tx: Transaction, order: Order) -> None:
    """Write the lines and totals of a locked order that has fewer of them."""
    totals, lines = order.totals, order.totals.lines
    amounts = (totals.subtotal, totals.shipping_fee, totals.tax_total, totals.total, order.cancelled_amount)
    await tx.execute(sql.update_totals, order.id, *amounts)
    skus = [line.sku for line in lines]
    await tx.execute(sql.delete_other_lines, order.id, skus)
    taxes, sums = [line.tax for line in lines], [line.total for line in lines]
    await tx.execute(sql.update_lines, order.id, skus, [line.quantity for line in lines], taxes, sums)


async def lock_cancellation(tx: Transaction, cancellation_id: str) -> tuple[LineCancellation, Order]:
    """Lock the order of a cancellation, and return both; raises CancellationNotFound."""
    order_id = await tx.fetchval(sql.read_cancellation_order, cancellation_id)
    if order_id is None:
        raise CancellationNotFound(cancellation_id=cancellation_id)
    order = await store.lock_order(tx, order_id)
    return await read_cancellation(tx, cancellation_id), order


async def lock_due_cancellation(tx: Transaction, cancellation_id: str) -> LineCancellation | None:
    """Return a cancellation that is due, locked; None when it is not due."""
    if await tx.fetchval(sql.lock_due_cancellation, cancellation_id) is None:
        return None
    return await read_cancellation(tx, cancellation_id)


async def read_cancellation(tx: Transaction, cancellation_id: str) -> LineCancellation:
    """Return a cancellation, which exists."""
    (found,) = await _from_rows(tx, await tx.fetch(sql.read_cancellation, cancellation_id))
    return found


async def read_cancellations_of(tx: Transaction, order_id: str) -> list[LineCancellation]:
    """Return the cancellations of an order's lines, oldest first."""
    return await _from_rows(tx, await tx.fetch(sql.read_cancellations_of, order_id))


async def update_cancellation(tx: Transaction, one: LineCancellation) -> None:
    """Write a cancellation that was locked."""
    await tx.execute(
        sql.update_cancellation,
        one.id,
        one.state.name,
        one.step.value,
        one.refund,
        one.problem,
        one.attempts,
        one.next_attempt_time,
        one.version,
        one.update_time,
        one.retries,
    )


async def list_due_cancellations(tx: Transaction, limit: int) -> list[str]:
    """Return the ids of cancellations whose next attempt is due, the most overdue first."""
    return [row["cancellation_id"] for row in await tx.fetch(sql.list_due_cancellations, limit)]


async def renew_cancellation(tx: Transaction, claimed: LineCancellation, lease: timedelta) -> None:
    """Extend a lease, unless it was lost."""
    await tx.execute(sql.renew_cancellation, claimed.id, claimed.version, lease)


async def insert_decision(
    tx: Transaction, one: LineCancellation, decision: RefundDecision, actor: str, reason: str
) -> None:
    """Record a decision about a cancellation."""
    await tx.execute(sql.insert_cancellation_decision, one.id, decision.name, actor, reason)


async def list_decisions(tx: Transaction, cancellation_id: str) -> list[Record]:
    """Return what operators decided about a cancellation, oldest first."""
    return await tx.fetch(sql.list_cancellation_decisions, cancellation_id)


async def _from_rows(tx: Transaction, rows: Sequence[Record]) -> list[LineCancellation]:
    if not rows:
        return []
    lines: defaultdict[str, list[CancelledLine]] = defaultdict(list)
    for row in await tx.fetch(sql.read_cancellation_lines, [row["cancellation_id"] for row in rows]):
        fields = {name: row[name] for name in ("sku", "name", "quantity", "unit_price")}
        lines[row["cancellation_id"]].append(CancelledLine(**fields))
    return [_from_row(row, tuple(lines[row["cancellation_id"]])) for row in rows]


def _from_row(row: Record, lines: tuple[CancelledLine, ...]) -> LineCancellation:
    return LineCancellation(
        id=row["cancellation_id"],
        order_id=row["order_id"],
        lines=lines,
        amount=row["amount"],
        message=row["message"],
        state=CancellationState[row["state"]],
        step=CancellationStep(row["step"]),
        refund=row["refund"],
        problem=row["problem"],
        attempts=row["attempts"],
        retries=row["retries"],
        next_attempt_time=row["next_attempt_time"],
        version=row["version"],
        create_time=row["create_time"],
        update_time=row["update_time"],
    )
