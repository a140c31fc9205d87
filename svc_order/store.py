"""The rows of orders and sagas: what the domain knows goes in and comes out; SQL stops here."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from chassis import Queries, Record, Transaction
from shop.order.v1.order_errors import OrderNotFound, SagaNotFound
from svc_order.domain import Bill, Fulfillment, Line, Order, Payment, State
from svc_order.domain_saga import Saga, SagaState, Step

sql = Queries(Path(__file__).parent / "queries.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """How a step of a saga stands."""

    name: str
    state: str
    attempts: int
    reason: str = ""


async def read_now(tx: Transaction) -> datetime:
    """Return the database's clock."""
    now: datetime = await tx.fetchval(sql.read_now)
    return now


async def insert_order(tx: Transaction, order: Order) -> None:
    """Insert a new order with its lines, and the beginning of its history."""
    bill = order.bill
    await tx.execute(
        sql.insert_order,
        order.id,
        order.user_id,
        order.state.name,
        order.payment_state.name,
        order.fulfillment_state.name,
        bill.currency,
        bill.subtotal,
        bill.shipping_fee,
        bill.tax_total,
        bill.total,
        order.shipping_address,
        order.slot_id,
        order.reservation_id,
        order.payment_id,
        order.version,
        order.create_time,
    )
    await tx.execute(
        sql.insert_lines,
        order.id,
        [line.sku for line in bill.lines],
        [line.product_id for line in bill.lines],
        [line.name for line in bill.lines],
        [line.quantity for line in bill.lines],
        [line.unit_price for line in bill.lines],
        [line.tax_rate_basis_points for line in bill.lines],
        [line.tax for line in bill.lines],
        [line.total for line in bill.lines],
        [line.weight_grams for line in bill.lines],
    )
    await tx.execute(sql.insert_history, order.id, order.version, "", order.state.name, "", order.create_time, "")


async def read_order(tx: Transaction, order_id: str) -> Order:
    """Return an order; raises OrderNotFound."""
    return await _order(tx, sql.read_order, order_id)


async def lock_order(tx: Transaction, order_id: str) -> Order:
    """Return an order, kept from changes by others until this transaction ends; raises OrderNotFound."""
    return await _order(tx, sql.lock_order, order_id)


async def list_orders(
    tx: Transaction, *, user_id: str, state: str, before: tuple[datetime, str], limit: int
) -> list[Order]:
    """Return orders before a position, newest first; an empty `user_id` or `state` means any."""
    return await _orders(tx, await tx.fetch(sql.list_orders, user_id, state, *before, limit))


async def count_pending(tx: Transaction, user_id: str) -> int:
    """Return how many of a user's orders wait for their saga."""
    count: int = await tx.fetchval(sql.count_pending, user_id)
    return count


async def update_order(tx: Transaction, before: Order, after: Order) -> Order:
    """Write an order that was locked, with its history where its state moved, and return it with its new version."""
    if after is before:
        return before
    after = replace(after, version=before.version + 1)
    await tx.execute(
        sql.update_order,
        after.id,
        after.state.name,
        after.state_reason,
        after.payment_state.name,
        after.fulfillment_state.name,
        after.shipment_id,
        after.version,
        after.update_time,
        after.state_message,
    )
    if after.state is not before.state:
        move = (before.state.name, after.state.name, after.state_reason, after.update_time, after.state_message)
        await tx.execute(sql.insert_history, after.id, after.version, *move)
    return after


async def list_history(tx: Transaction, order_id: str) -> list[Record]:
    """Return an order's moves, oldest first."""
    return await tx.fetch(sql.list_history, order_id)


async def list_returnable_over(tx: Transaction, window: timedelta, limit: int) -> list[str]:
    """Return the ids of orders that were delivered longer ago than `window`."""
    return [row["order_id"] for row in await tx.fetch(sql.list_returnable_over, window, limit)]


async def insert_saga(tx: Transaction, saga: Saga, payment_method_token: str, now: datetime) -> None:
    """Insert the saga of a new order."""
    await tx.execute(
        sql.insert_saga,
        saga.id,
        saga.order_id,
        saga.state.name,
        saga.step.value,
        saga.attempts,
        saga.next_attempt_time,
        saga.version,
        saga.traceparent,
        payment_method_token,
        now,
    )


async def read_saga_row(tx: Transaction, saga_id: str) -> Record:
    """Return a saga's row; raises SagaNotFound."""
    row = await tx.fetchrow(sql.read_saga, saga_id)
    if row is None:
        raise SagaNotFound(saga_id=saga_id)
    return row


async def lock_saga(tx: Transaction, saga_id: str) -> tuple[Saga, datetime]:
    """Return a saga, kept from changes by others until this transaction ends, and the clock; raises SagaNotFound."""
    row = await tx.fetchrow(sql.lock_saga, saga_id)
    if row is None:
        raise SagaNotFound(saga_id=saga_id)
    return saga_from_row(row), row["now"]


async def lock_due_saga(tx: Transaction, saga_id: str) -> tuple[Saga, str, datetime] | None:
    """Return a saga that is due, its payment method and the clock, locked; None when another process was quicker."""
    row = await tx.fetchrow(sql.lock_due_saga, saga_id)
    return (saga_from_row(row), row["payment_method_token"], row["now"]) if row else None


async def list_due(tx: Transaction, limit: int) -> list[str]:
    """Return the ids of sagas that are due, the most overdue first."""
    return [row["saga_id"] for row in await tx.fetch(sql.list_due, limit)]


async def list_saga_rows(tx: Transaction, *, state: str, after: tuple[datetime, str], limit: int) -> list[Record]:
    """Return sagas after a position, oldest first; an empty `state` means any."""
    return await tx.fetch(sql.list_sagas, state, *after, limit)


async def update_saga(tx: Transaction, saga: Saga) -> None:
    """Write a saga that was locked."""
    await tx.execute(
        sql.update_saga,
        saga.id,
        saga.state.name,
        saga.step.value,
        saga.attempts,
        saga.next_attempt_time,
        saga.reason,
        saga.cancel_reason,
        saga.parked_from.name if saga.parked_from else None,
        saga.version,
        saga.retries,
        saga.message,
    )


async def renew_claim(tx: Transaction, claimed: Saga, lease: timedelta) -> None:
    """Keep a claim for another `lease`, unless it was lost."""
    await tx.execute(sql.renew_claim, claimed.id, claimed.version, lease)


async def write_steps(tx: Transaction, saga_id: str, *steps: StepRecord) -> None:
    """Record how some steps of a saga stand."""
    await tx.execute(
        sql.write_steps,
        saga_id,
        [step.name for step in steps],
        [step.state for step in steps],
        [step.attempts for step in steps],
        [step.reason for step in steps],
    )


async def list_steps(tx: Transaction, saga_id: str) -> list[Record]:
    """Return a saga's steps in the order in which they were last tried."""
    return await tx.fetch(sql.list_steps, saga_id)


def saga_from_row(row: Record) -> Saga:
    """Return the saga that a row holds."""
    return Saga(
        id=row["saga_id"],
        order_id=row["order_id"],
        next_attempt_time=row["next_attempt_time"],
        state=SagaState[row["state"]],
        step=Step(row["step"]),
        attempts=row["attempts"],
        retries=row["retries"],
        reason=row["reason"],
        cancel_reason=row["cancel_reason"],
        message=row["message"],
        parked_from=SagaState[row["parked_from"]] if row["parked_from"] else None,
        version=row["version"],
        traceparent=row["traceparent"],
    )


async def _order(tx: Transaction, query: str, order_id: str) -> Order:
    row = await tx.fetchrow(query, order_id)
    if row is None:
        raise OrderNotFound(order_id=order_id)
    (order,) = await _orders(tx, [row])
    return order


async def _orders(tx: Transaction, rows: Sequence[Record]) -> list[Order]:
    lines: defaultdict[str, list[Line]] = defaultdict(list)
    for row in await tx.fetch(sql.read_lines, [row["order_id"] for row in rows]):
        lines[row["order_id"]].append(_line_from_row(row))
    return [_order_from_row(row, tuple(lines[row["order_id"]])) for row in rows]


def _order_from_row(row: Record, lines: tuple[Line, ...]) -> Order:
    return Order(
        id=row["order_id"],
        user_id=row["user_id"],
        bill=Bill(currency=row["currency"], lines=lines, shipping_fee=row["shipping_fee"], tax_total=row["tax_total"]),
        shipping_address=row["shipping_address"],
        slot_id=row["slot_id"],
        reservation_id=row["reservation_id"],
        payment_id=row["payment_id"],
        create_time=row["create_time"],
        update_time=row["update_time"],
        state=State[row["state"]],
        state_reason=row["state_reason"],
        state_message=row["state_message"],
        payment_state=Payment[row["payment_state"]],
        fulfillment_state=Fulfillment[row["fulfillment_state"]],
        shipment_id=row["shipment_id"],
        version=row["version"],
    )


def _line_from_row(row: Record) -> Line:
    return Line(
        sku=row["sku"],
        product_id=row["product_id"],
        name=row["name"],
        quantity=row["quantity"],
        unit_price=row["unit_price"],
        tax_rate_basis_points=row["tax_rate_basis_points"],
        tax=row["tax"],
        total=row["total"],
        weight_grams=row["weight_grams"],
    )
