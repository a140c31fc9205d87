"""Reads and writes the rows of svc_order as domain objects; no other module of the service knows SQL.

Two conventions hold for every transaction:

* Lock order: the saga is locked before its order. A transaction that needs both calls `lock_saga_and_order`.
* `after is before` means no change: `update_order` then writes nothing, and the order keeps its version.

What is decided about locked rows is decided by the time that was read with the lock.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from chassis import Queries, Record, Transaction
from shop.order.v1.order_errors import OrderNotFound, SagaNotFound
from svc_order.domain import Fulfillment, Line, Order, OrderTotals, Payment, State
from svc_order.domain_saga import Saga, SagaState, saga_id
from svc_order.domain_steps import Done, Pending, Refused, Step, StepResult, Unknown

sql = Queries(Path(__file__).parent / "queries.sql")

_LINE_COLUMNS = (
    "sku", "product_id", "name", "quantity", "unit_price", "tax_rate_basis_points", "tax", "total", "weight_grams",
)  # fmt: skip


async def insert_order(tx: Transaction, order: Order, most_pending: int) -> None:
    """Insert a new order with its lines, and the first entry of its history.

    The user must have less than `most_pending` pending orders.
    """
    totals = order.totals
    tx.write(
        sql.insert_order,
        (
            order.id,
            order.user_id,
            order.state.name,
            order.payment_state.name,
            order.fulfillment_state.name,
            totals.currency,
            totals.subtotal,
            totals.shipping_fee,
            totals.tax_total,
            totals.total,
            order.shipping_address,
            order.slot_id,
            order.reservation_id,
            order.payment_id,
            order.version,
            order.create_time,
            most_pending,
        ),
    )
    lines = enumerate(totals.lines, start=1)
    tx.write(
        sql.insert_lines, *((order.id, at, *(getattr(line, name) for name in _LINE_COLUMNS)) for at, line in lines)
    )
    tx.write(sql.insert_history, (order.id, order.version, "", order.state.name, "", order.create_time, ""))


async def read_order(tx: Transaction, order_id: str) -> Order:
    """Return an order; raises OrderNotFound."""
    orders = await read_orders(tx, [order_id])
    if order_id not in orders:
        raise OrderNotFound(order_id=order_id)
    return orders[order_id]


async def read_orders(tx: Transaction, ids: Collection[str]) -> dict[str, Order]:
    """Return the orders that exist, by id."""
    found: defaultdict[str, list[Record]] = defaultdict(list)
    for row in await tx.fetch(sql.read_orders, list(ids)):
        found[row["order_id"]].append(row)
    return {key: _order_from_row(rows[0], _lines_from_rows(rows)) for key, rows in found.items()}


async def lock_order(tx: Transaction, order_id: str) -> Order:
    """Return an order, locked against every other change until this transaction ends; raises OrderNotFound."""
    row = await tx.fetchrow(sql.lock_order, order_id)
    if row is None:
        raise OrderNotFound(order_id=order_id)
    (order,) = await _with_lines(tx, [row])
    return order


async def lock_saga_and_order(tx: Transaction, order_id: str) -> tuple[Saga, Order, datetime]:
    """Lock an order's saga, then the order, and return both with the time; raises OrderNotFound."""
    try:
        saga, now = await lock_saga(tx, saga_id(order_id))
    except SagaNotFound:
        raise OrderNotFound(order_id=order_id) from None
    return saga, await lock_order(tx, order_id), now


async def list_orders(
    tx: Transaction, *, user_id: str, state: str, before: tuple[datetime, str], limit: int
) -> list[Order]:
    """Return orders before a position, newest first; an empty `user_id` or `state` means any."""
    if user_id and state:
        rows = await tx.fetch(sql.list_orders_of_user_in_state, user_id, state, *before, limit)
    elif user_id:
        rows = await tx.fetch(sql.list_orders_of_user, user_id, *before, limit)
    elif state:
        rows = await tx.fetch(sql.list_orders_in_state, state, *before, limit)
    else:
        rows = await tx.fetch(sql.list_orders, *before, limit)
    return await _with_lines(tx, rows)


async def has_most_pending(tx: Transaction, user_id: str, most: int) -> bool:
    """Return whether so many of a user's orders are PENDING; until this transaction ends no other one counts them."""
    await tx.begin()
    return bool(await tx.fetchval(sql.count_pending, user_id, most) >= most)


async def update_order(tx: Transaction, before: Order, after: Order) -> Order:
    """Write what follows an order, with the transition of its state, and return it with its new version."""
    if after is before:
        return before
    after = replace(after, version=before.version + 1)
    tx.write(
        sql.update_order,
        (
            after.id,
            after.state.name,
            after.state_reason,
            after.payment_state.name,
            after.fulfillment_state.name,
            after.shipment_id,
            after.version,
            after.update_time,
            after.state_message,
            after.payment_id,
            after.payment_due_time,
            after.ended_shipments,
        ),
    )
    if after.state is not before.state:
        transition = (before.state.name, after.state.name, after.state_reason, after.update_time, after.state_message)
        tx.write(sql.insert_history, (after.id, after.version, *transition))
    return after


async def list_past_return_window(tx: Transaction, window: timedelta, limit: int) -> list[str]:
    """Return the ids of orders that were delivered longer ago than `window`."""
    return [row["order_id"] for row in await tx.fetch(sql.list_past_return_window, window, limit)]


async def insert_saga(tx: Transaction, saga: Saga, payment_method_token: str, now: datetime) -> None:
    """Insert the saga of a new order."""
    tx.write(
        sql.insert_saga,
        (
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
            saga.deadline,
            saga.keep_on_decline,
            saga.executing,
        ),
    )


async def read_saga_row(tx: Transaction, saga_id: str) -> Record:
    """Return a saga's row; raises SagaNotFound."""
    row = await tx.fetchrow(sql.read_saga, saga_id)
    if row is None:
        raise SagaNotFound(saga_id=saga_id)
    return row


async def lock_saga(tx: Transaction, saga_id: str) -> tuple[Saga, datetime]:
    """Return a saga, locked against every other change, and the time; raises SagaNotFound."""
    row = await tx.fetchrow(sql.lock_saga, saga_id)
    if row is None:
        raise SagaNotFound(saga_id=saga_id)
    return saga_from_row(row), row["now"]


async def lock_due_saga(tx: Transaction, saga_id: str) -> tuple[Saga, str, datetime] | None:
    """Return a saga that is due, locked, its payment method and the time; None when it is not due."""
    row = await tx.fetchrow(sql.lock_due_saga, saga_id)
    return (saga_from_row(row), row["payment_method_token"], row["now"]) if row else None


async def list_due_sagas(tx: Transaction, limit: int) -> list[str]:
    """Return the ids of sagas that are due, the most overdue first."""
    return [row["saga_id"] for row in await tx.fetch(sql.list_due_sagas, limit)]


async def update_saga(tx: Transaction, saga: Saga, read: Saga | None = None) -> None:
    """Write a saga that was locked, or that is still as it was `read`.

    A cancellation is recorded at the same version: it is compared, too.
    """
    tx.write(
        sql.update_saga,
        (
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
            saga.shipment_actor,
            saga.executing,
            saga.deadline,
            read.version if read else None,
            read.cancel_reason if read else None,
        ),
    )


async def update_payment_method(tx: Transaction, saga_id: str, token: str) -> None:
    """Write the payment method of an order whose saga was locked."""
    await tx.execute(sql.update_payment_method, saga_id, token)


async def renew_saga(tx: Transaction, claimed: Saga, lease: timedelta) -> None:
    """Extend a lease, unless it was lost."""
    await tx.execute(sql.renew_saga, claimed.id, claimed.version, lease)


async def write_steps(tx: Transaction, *results: tuple[Saga, StepResult]) -> None:
    """Record the results of steps, each with the saga that it was the current step of."""
    tx.write(sql.write_steps, *(_step_row(saga, result) for saga, result in results))


def _step_row(saga: Saga, result: StepResult) -> tuple[str, str, str, int, str]:
    match result:
        case Done():
            state, reason = ("COMPENSATED" if saga.state is SagaState.COMPENSATING else "DONE"), ""
        case Refused(reason):
            state = "REFUSED"
        case Unknown(reason):
            state = "UNKNOWN"
        case Pending():
            state, reason = "RUNNING", ""
    return saga.id, saga.step.value, state, saga.attempts, reason


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
        executing=row["executing"],
        deadline=row["deadline"],
        keep_on_decline=row["keep_on_decline"],
        shipment_actor=row["shipment_actor"],
        parked_from=SagaState[row["parked_from"]] if row["parked_from"] else None,
        version=row["version"],
        traceparent=row["traceparent"],
    )


async def _with_lines(tx: Transaction, rows: Sequence[Record]) -> list[Order]:
    lines: defaultdict[str, list[Line]] = defaultdict(list)
    for row in await tx.fetch(sql.read_lines, [row["order_id"] for row in rows]):
        lines[row["order_id"]].append(_line_from_row(row))
    return [_order_from_row(row, tuple(lines[row["order_id"]])) for row in rows]


def _order_from_row(row: Record, lines: tuple[Line, ...]) -> Order:
    return Order(
        id=row["order_id"],
        user_id=row["user_id"],
        totals=OrderTotals(
            currency=row["currency"], lines=lines, shipping_fee=row["shipping_fee"], tax_total=row["tax_total"]
        ),
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
        ended_shipments=row["ended_shipments"],
        payment_due_time=row["payment_due_time"],
        cancelled_amount=row["cancelled_amount"],
        version=row["version"],
    )


def _lines_from_rows(rows: Sequence[Record]) -> tuple[Line, ...]:
    names = {column: "line_total" if column == "total" else column for column in _LINE_COLUMNS}
    return tuple(Line(**{column: row[name] for column, name in names.items()}) for row in rows if row["sku"])


def _line_from_row(row: Record) -> Line:
    return Line(**{column: row[column] for column in _LINE_COLUMNS})
