"""Reads and writes the rows of svc_payment as domain objects; no other module of the service knows SQL."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from chassis import Queries, Record, Transaction
from shop.payment.v1.payment_errors import OrderNotPaidFor, PaymentNotFound
from svc_payment.domain import Entry, EntryStatus, Method, OperationKind, Payment, State
from svc_payment.domain_requests import fingerprint_of

sql = Queries(Path(__file__).parent / "queries.sql")

#: The one provider so far; its ids are unique only beside its name.
_PROVIDER = "main"


@dataclass(frozen=True, slots=True)
class DeclineLimits:
    """How many declined payments within a span of time bar further ones."""

    #: Different methods of one user.
    methods_per_user: int
    #: Payments with one method, of all users.
    payments_per_method: int
    span: timedelta


@dataclass(frozen=True, slots=True)
class Schedule:
    """When the next attempt at a payment is due."""

    #: From now; None when nothing is left to do.
    due_in: timedelta | None
    not_before: datetime | None = None
    #: Why the last attempt did not settle the payment.
    error: str = ""


async def lock_name(tx: Transaction, payment_id: str) -> None:
    """Lock an id, whether or not its payment exists, until this transaction ends."""
    await tx.execute(sql.lock_name, payment_id)


async def lock_payment(tx: Transaction, payment_id: str) -> Payment:
    """Return a payment, locked against every other change until this transaction ends; raises PaymentNotFound."""
    is_due = bool(await tx.fetchval(sql.lock_payment, payment_id))
    return replace(await read_payment(tx, payment_id), is_due=is_due)


async def lock_due_payment(tx: Transaction, payment_id: str) -> Payment | None:
    """Return a payment, locked, if it is due and not locked by another transaction."""
    if not await tx.fetchval(sql.lock_due_payment, payment_id):
        return None
    return replace(await read_payment(tx, payment_id), is_due=True)


async def read_payment(tx: Transaction, payment_id: str) -> Payment:
    """Return a payment; raises PaymentNotFound."""
    rows = await tx.fetch(sql.read_payment, payment_id)
    if not rows:
        raise PaymentNotFound(payment_id=payment_id)
    return _payment_from_rows(rows)


async def read_payments(tx: Transaction, ids: Collection[str]) -> dict[str, Payment]:
    """Return the payments that exist, by id."""
    entries: defaultdict[str, list[Record]] = defaultdict(list)
    for row in await tx.fetch(sql.read_payments, list(ids)):
        entries[row["payment_id"]].append(row)
    return {payment_id: _payment_from_rows(rows) for payment_id, rows in entries.items()}


async def find_payment(tx: Transaction, order_id: str) -> str:
    """Return the id of an order's payment; raises OrderNotPaidFor."""
    payment_id: str | None = await tx.fetchval(sql.find_payment, order_id)
    if payment_id is None:
        raise OrderNotPaidFor(order_id=order_id)
    return payment_id


async def insert_payment(tx: Transaction, payment: Payment, lease: timedelta, limits: DeclineLimits) -> bool:
    """Insert a new, claimed payment; return whether it was inserted. While `tx` is optimistic it is, or is a conflict.

    It is not when its id has a tombstone or exists, its order has another payment, or the limits are reached. Its id is
    locked either way.
    """
    row = (
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
        payment.claims,
        lease,
        payment.fingerprint,
        limits.span,
        limits.methods_per_user,
        limits.payments_per_method,
    )
    if tx.optimistic:
        tx.write(sql.insert_payment, row)
    elif not await tx.fetchval(f"{sql.insert_payment} RETURNING true", *([value] for value in row)):
        return False
    _insert_entries(tx, payment.id, payment.ledger_entries)
    return True


async def update_payment(tx: Transaction, before: Payment, after: Payment, schedule: Schedule | None) -> None:
    """Write what follows a payment, with its new ledger entries; without a schedule its next attempt stays when it is.

    The payment was locked, or is still as it was read.
    """
    tx.write(
        sql.update_payment,
        (
            after.id,
            after.state.name,
            after.authorized,
            after.captured,
            after.refunded,
            after.provider_id,
            after.void_request_time,
            after.void_reason,
            after.attempts,
            after.claims,
            after.version,
            schedule is not None,
            schedule.due_in if schedule else None,
            schedule.error if schedule else "",
            schedule.not_before if schedule else None,
            after.needs_token,
            after.action_url,
            after.expire_time,
            after.dispute_due_time,
            before.claims,
            before.version,
        ),
    )
    _insert_entries(tx, after.id, after.ledger_entries[len(before.ledger_entries) :])


async def read_method(tx: Transaction, user_id: str, fingerprint: str, limits: DeclineLimits) -> tuple[Method, bool]:
    """Return what is known of a payment method, and whether the limits of the user or the method are reached."""
    values = (limits.span, limits.methods_per_user, limits.payments_per_method)
    row = await tx.fetchrow(sql.read_method, user_id, fingerprint, *values)
    assert row is not None
    return Method(kind=row["kind"] or "", brand=row["brand"] or "", last4=row["last4"] or ""), row["exceeded"]


async def write_method(tx: Transaction, fingerprint: str, method: Method) -> None:
    """Write what a payment method looks like."""
    await tx.execute(sql.write_method, fingerprint, method.kind, method.brand, method.last4)


async def list_due(tx: Transaction, limit: int) -> list[str]:
    """Return the ids of payments whose next attempt is due, the most overdue first."""
    return [row["payment_id"] for row in await tx.fetch(sql.list_due, limit)]


async def renew_claim(tx: Transaction, claimed: Payment, lease: timedelta) -> None:
    """Extend a claim by another lease, unless it was lost."""
    await tx.execute(sql.renew_claim, claimed.id, claimed.claims, lease)


async def make_due(tx: Transaction, payment_id: str) -> None:
    """Make an attempt due now that fetches the provider's state."""
    await tx.execute(sql.make_due, payment_id)


async def make_disputed_due(tx: Transaction, ids: Collection[str]) -> int:
    """Make an attempt due for those of the disputed payments that are not known to be; return their number."""
    return len(await tx.fetch(sql.make_disputed_due, list(ids)))


async def insert_tombstone(tx: Transaction, payment_id: str, reason: str) -> None:
    """Keep a payment that does not exist from being started."""
    await tx.execute(sql.insert_tombstone, payment_id, reason)


async def has_tombstone(tx: Transaction, payment_id: str) -> bool:
    """Return whether a payment was voided before it was started."""
    return bool(await tx.fetchval(sql.has_tombstone, payment_id))


def _insert_entries(tx: Transaction, payment_id: str, entries: Sequence[Entry]) -> None:
    tx.write(
        sql.insert_entries,
        *(
            (
                payment_id,
                _PROVIDER,
                one.operation_id,
                one.kind.name,
                one.status.name,
                one.amount,
                one.reference,
                one.reason,
            )
            for one in entries
        ),
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
        # A process of the release before writes none.
        fingerprint=first["fingerprint"] or fingerprint_of(first["token"]),
        method=Method(kind=first["method"], brand=first["brand"], last4=first["last4"]),
        state=State[first["state"]],
        ledger_entries=tuple(_entry_from_row(row) for row in rows),
        provider_id=first["provider_id"],
        action_url=first["action_url"],
        expire_time=first["expire_time"],
        dispute_due_time=first["dispute_due_time"],
        void_request_time=first["void_request_time"],
        void_reason=first["void_reason"],
        attempts=first["attempts"],
        claims=first["claims"],
        version=first["version"],
        create_time=first["create_time"],
        update_time=first["update_time"],
    )


def _entry_from_row(row: Record) -> Entry:
    return Entry(
        operation_id=row["operation_id"],
        kind=OperationKind[row["kind"]],
        status=EntryStatus[row["outcome"]],
        amount=row["entry_amount"],
        reference=row["reference"],
        reason=row["reason"],
        id=row["entry_id"],
        create_time=row["entry_time"],
    )
