"""The payments' rows: what the domain knows goes in and comes out; SQL stops here."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from chassis import Queries, Record, Transaction
from shop.payment.v1.payment_errors import OrderNotPaidFor, PaymentNotFound
from svc_payment.domain import Entry, EntryStatus, Kind, Method, Payment, State

sql = Queries(Path(__file__).parent / "queries.sql")

#: The one provider so far; its ids are unique only beside its name.
_PROVIDER = "main"


async def read_now(tx: Transaction) -> datetime:
    """Return the database's time."""
    now: datetime = await tx.fetchval(sql.read_now)
    return now


async def lock_name(tx: Transaction, payment_id: str) -> None:
    """Keep an id, which may not be taken yet, from everyone else until this transaction ends."""
    await tx.execute(sql.lock_name, payment_id)


async def lock_payment(tx: Transaction, payment_id: str) -> Payment:
    """Return a payment, locked against every other change until this transaction ends; raises PaymentNotFound."""
    await tx.execute(sql.lock_payment, payment_id)
    return await read_payment(tx, payment_id)


async def read_payment(tx: Transaction, payment_id: str) -> Payment:
    """Return a payment; raises PaymentNotFound."""
    rows = await tx.fetch(sql.read_payment, payment_id)
    if not rows:
        raise PaymentNotFound(payment_id=payment_id)
    return _payment_from_rows(rows)


async def find_payment(tx: Transaction, order_id: str) -> str:
    """Return the id of an order's payment; raises OrderNotPaidFor."""
    payment_id: str | None = await tx.fetchval(sql.find_payment, order_id)
    if payment_id is None:
        raise OrderNotPaidFor(order_id=order_id)
    return payment_id


async def insert_payment(tx: Transaction, payment: Payment, wait: timedelta) -> bool:
    """Insert a new payment, due after `wait`; False when it was given up, its id is taken or its order has another."""
    (asked,) = payment.entries
    inserted = await tx.fetchval(
        sql.insert_payment,
        payment.id,
        payment.order_id,
        payment.user_id,
        payment.amount,
        payment.currency,
        payment.token,
        payment.state.name,
        payment.version,
        _PROVIDER,
        payment.attempts,
        wait,
        asked.operation_id,
        asked.kind.name,
        asked.outcome.name,
        asked.amount,
    )
    return bool(inserted)


async def update_payment(tx: Transaction, before: Payment, after: Payment, wait: timedelta) -> None:
    """Write a locked payment with its new entries; until it is settled it is due again after `wait`."""
    due = not after.settled or after.attempts > 0
    await tx.execute(
        sql.update_payment,
        after.id,
        after.state.name,
        after.authorized,
        after.captured,
        after.refunded,
        after.provider_id,
        after.give_up_time,
        after.give_up_reason,
        after.attempts,
        after.version,
        wait if due else None,
    )
    if new := after.entries[len(before.entries) :]:
        await _insert_entries(tx, after.id, new)


async def write_method(tx: Transaction, token: str, method: Method) -> None:
    """Remember what a payment method looks like."""
    await tx.execute(sql.write_method, token, method.kind, method.brand, method.last4)


async def claim_due(tx: Transaction, limit: int, wait: timedelta) -> list[str]:
    """Return the ids of payments to settle now; others take them up only after `wait`."""
    return [row["payment_id"] for row in await tx.fetch(sql.claim_due, limit, wait)]


async def postpone(tx: Transaction, payment_id: str, wait: timedelta, trouble: str) -> None:
    """Have a payment that is still not settled taken up again after `wait`."""
    await tx.execute(sql.postpone, payment_id, wait, trouble)


async def make_due(tx: Transaction, payment_id: str) -> None:
    """Have a payment taken up at once."""
    await tx.execute(sql.make_due, payment_id)


async def insert_given_up(tx: Transaction, payment_id: str, reason: str) -> None:
    """Keep a payment that was not begun from ever being begun."""
    await tx.execute(sql.insert_given_up, payment_id, reason)


async def is_given_up(tx: Transaction, payment_id: str) -> bool:
    """Tell whether a payment must not be begun."""
    return bool(await tx.fetchval(sql.is_given_up, payment_id))


async def insert_provider_event(tx: Transaction, event_id: str, kind: str, payment_id: str) -> bool:
    """Remember a webhook; False when it came before."""
    return bool(await tx.fetchval(sql.insert_provider_event, event_id, kind, payment_id))


async def _insert_entries(tx: Transaction, payment_id: str, entries: Sequence[Entry]) -> None:
    await tx.execute(
        sql.insert_entries,
        payment_id,
        _PROVIDER,
        [entry.operation_id for entry in entries],
        [entry.kind.name for entry in entries],
        [entry.outcome.name for entry in entries],
        [entry.amount for entry in entries],
        [entry.reference for entry in entries],
        [entry.reason for entry in entries],
    )


def _payment_from_rows(rows: Sequence[Record]) -> Payment:
    first = rows[0]
    return Payment(
        id=first["payment_id"],
        order_id=first["order_id"],
        user_id=first["user_id"],
        amount=first["amount"],
        currency=first["currency"],
        token=first["token"],
        method=Method(kind=first["method"] or "", brand=first["brand"] or "", last4=first["last4"] or ""),
        state=State[first["state"]],
        entries=tuple(_entry_from_row(row) for row in rows),
        provider_id=first["provider_id"],
        give_up_time=first["give_up_time"],
        give_up_reason=first["give_up_reason"],
        attempts=first["attempts"],
        version=first["version"],
        create_time=first["create_time"],
        update_time=first["update_time"],
    )


def _entry_from_row(row: Record) -> Entry:
    return Entry(
        operation_id=row["operation_id"],
        kind=Kind[row["kind"]],
        outcome=EntryStatus[row["outcome"]],
        amount=row["entry_amount"],
        reference=row["reference"],
        reason=row["reason"],
        id=row["entry_id"],
        create_time=row["entry_time"],
    )
