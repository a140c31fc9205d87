"""Reads and writes returns as domain objects. The lock of a return is that of its order."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from chassis import Record, Transaction
from shop.order.v1.order_errors import ReturnNotFound
from svc_order import store
from svc_order.domain import Order
from svc_order.domain_returns import Return, ReturnLine, ReturnState, ReturnStep
from svc_order.store import sql


async def insert_return(tx: Transaction, one: Return, actor: str) -> None:
    """Insert a new return with its lines, and the first entry of its history."""
    state, step, created = one.state.name, one.step.value, one.create_time
    identity = (one.id, one.order_id, one.user_id, state, one.reason, one.message)
    await tx.execute(sql.insert_return, *identity, step, one.next_attempt_time, one.version, created)
    quantities = [line.quantity for line in one.lines]
    await tx.execute(sql.insert_return_lines, one.id, [line.sku for line in one.lines], quantities)
    await tx.execute(sql.insert_return_history, one.id, one.version, state, actor, one.message, created)


async def lock_return(tx: Transaction, return_id: str) -> tuple[Return, Order]:
    """Lock the order of a return, and return both; raises ReturnNotFound."""
    order_id = await tx.fetchval(sql.read_return_order, return_id)
    if order_id is None:
        raise ReturnNotFound(return_id=return_id)
    order = await store.lock_order(tx, order_id)
    return await read_return(tx, return_id), order


async def lock_due_return(tx: Transaction, return_id: str) -> Return | None:
    """Return a received return that is due, locked; None when it is not due."""
    if await tx.fetchval(sql.lock_due_return, return_id) is None:
        return None
    return await read_return(tx, return_id)


async def read_return(tx: Transaction, return_id: str) -> Return:
    """Return a return; raises ReturnNotFound."""
    found = await _from_rows(tx, await tx.fetch(sql.read_returns, [return_id]))
    if not found:
        raise ReturnNotFound(return_id=return_id)
    return found[0]


async def read_returns_of(tx: Transaction, order_id: str) -> list[Return]:
    """Return the returns of an order, oldest first."""
    return await _from_rows(tx, await tx.fetch(sql.read_returns_of, order_id))


async def list_returns(
    tx: Transaction, *, user_id: str, order_id: str, state: str, before: tuple[datetime, str], limit: int
) -> list[Return]:
    """Return returns before a position, newest first; an empty user, order or state means any."""
    return await _from_rows(tx, await tx.fetch(sql.list_returns, user_id, order_id, state, *before, limit))


async def update_return(tx: Transaction, before: Return, after: Return, actor: str, message: str = "") -> None:
    """Write a return that was locked, and the transition of its state."""
    await tx.execute(
        sql.update_return,
        after.id,
        after.state.name,
        after.step.value,
        after.refund,
        after.problem,
        after.attempts,
        after.receipts,
        after.next_attempt_time,
        after.version,
        after.update_time,
        after.retries,
        after.refunded_outside,
    )
    if after.lines != before.lines:
        await tx.execute(
            sql.update_return_lines,
            after.id,
            [line.sku for line in after.lines],
            [line.restocked for line in after.lines],
            [line.written_off for line in after.lines],
            [line.location_id for line in after.lines],
        )
    if after.state is not before.state:
        entry = (after.id, after.version, after.state.name, actor, message, after.update_time)
        await tx.execute(sql.insert_return_history, *entry)


async def list_due_returns(tx: Transaction, limit: int) -> list[str]:
    """Return the ids of received returns whose next attempt is due, the most overdue first."""
    return [row["return_id"] for row in await tx.fetch(sql.list_due_returns, limit)]


async def renew_return(tx: Transaction, claimed: Return, lease: timedelta) -> None:
    """Extend a lease, unless it was lost."""
    await tx.execute(sql.renew_return, claimed.id, claimed.version, lease)


async def read_delivery_time(tx: Transaction, order_id: str) -> datetime | None:
    """Return when an order was first delivered."""
    delivered: datetime | None = await tx.fetchval(sql.read_delivery_time, order_id)
    return delivered


async def _from_rows(tx: Transaction, rows: Sequence[Record]) -> list[Return]:
    ids = [row["return_id"] for row in rows]
    lines, history = (
        await _by_return(tx, sql.read_return_lines, ids),
        await _by_return(tx, sql.read_return_history, ids),
    )
    return [_from_row(row, lines[row["return_id"]], history[row["return_id"]]) for row in rows]


async def _by_return(tx: Transaction, query: str, ids: Collection[str]) -> defaultdict[str, list[Record]]:
    found: defaultdict[str, list[Record]] = defaultdict(list)
    for row in await tx.fetch(query, ids):
        found[row["return_id"]].append(row)
    return found


def _from_row(row: Record, lines: Sequence[Record], history: Sequence[Record]) -> Return:
    return Return(
        id=row["return_id"],
        order_id=row["order_id"],
        user_id=row["user_id"],
        lines=tuple(map(_line_from_row, lines)),
        reason=row["reason"],
        message=row["message"],
        state=ReturnState[row["state"]],
        step=ReturnStep(row["step"]),
        refund=row["refund"],
        problem=row["problem"],
        attempts=row["attempts"],
        receipts=row["receipts"],
        retries=row["retries"],
        refunded_outside=row["refunded_outside"],
        next_attempt_time=row["next_attempt_time"],
        version=row["version"],
        create_time=row["create_time"],
        update_time=row["update_time"],
        history=tuple((ReturnState[one["state"]], one["message"], one["create_time"]) for one in history),
    )


def _line_from_row(row: Record) -> ReturnLine:
    return ReturnLine(
        sku=row["sku"],
        quantity=row["quantity"],
        restocked=row["restocked"],
        written_off=row["written_off"],
        location_id=row["location_id"],
    )
