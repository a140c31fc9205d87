"""A payment of the provider: its operations, and the ledger of them."""

import secrets
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from mesh.simulators.errors import ApiError
from mesh.simulators.store import SqliteStore, timestamp

SCHEMA = """
CREATE TABLE IF NOT EXISTS payments (
    id              TEXT PRIMARY KEY,
    reference       TEXT NOT NULL UNIQUE,
    payment_method  TEXT NOT NULL,
    status          TEXT NOT NULL,
    currency        TEXT NOT NULL,
    amount          INTEGER NOT NULL CHECK (amount > 0),
    amount_captured INTEGER NOT NULL CHECK (amount_captured BETWEEN 0 AND amount),
    amount_refunded INTEGER NOT NULL CHECK (amount_refunded BETWEEN 0 AND amount_captured),
    failure_code    TEXT,
    version         INTEGER NOT NULL,
    create_time     TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS operations (
    sequence        INTEGER PRIMARY KEY AUTOINCREMENT,
    id              TEXT NOT NULL UNIQUE,
    payment_id      TEXT NOT NULL REFERENCES payments,
    kind            TEXT NOT NULL,
    amount          INTEGER NOT NULL CHECK (amount > 0),
    idempotency_key TEXT NOT NULL,
    create_time     TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS operations_by_payment ON operations (payment_id);
CREATE TABLE IF NOT EXISTS waits (
    id             TEXT PRIMARY KEY REFERENCES payments,
    expires_at     TEXT,
    action_url     TEXT,
    dispute_id     TEXT,
    dispute_due_at TEXT,
    next_action    TEXT,
    next_time      TEXT
);
CREATE INDEX IF NOT EXISTS waits_by_time ON waits (next_time) WHERE next_time IS NOT NULL;
"""

LEDGER = """
SELECT sequence, operations.id, payment_id, reference, kind, operations.amount, currency, idempotency_key,
       operations.create_time
FROM operations JOIN payments ON payments.id = payment_id WHERE sequence > :after
"""


_HIDDEN = frozenset({"dispute_id", "next_action", "next_time"})


class Status(StrEnum):
    """The states of a payment."""

    REQUIRES_ACTION = "requires_action"
    AUTHORIZED = "authorized"
    CAPTURED = "captured"
    PARTIALLY_REFUNDED = "partially_refunded"
    REFUNDED = "refunded"
    VOIDED = "voided"
    FAILED = "failed"
    EXPIRED = "expired"
    DISPUTED = "disputed"
    CHARGED_BACK = "charged_back"


class Kind(StrEnum):
    """The kinds of operation, as the ledger and the webhooks (`payment.<kind>`) name them."""

    AUTHORIZED = "authorized"
    FAILED = "failed"
    CAPTURED = "captured"
    VOIDED = "voided"
    REFUNDED = "refunded"
    REQUIRES_ACTION = "requires_action"
    CANCELLED = "cancelled"
    ACTION_EXPIRED = "action_expired"
    EXPIRED = "expired"
    REAUTHORIZED = "reauthorized"
    DISPUTED = "disputed"
    EVIDENCE_SUBMITTED = "evidence_submitted"
    DISPUTE_ACCEPTED = "dispute_accepted"
    DISPUTE_WON = "dispute_won"
    CHARGED_BACK = "charged_back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """A payment."""

    id: str
    reference: str
    payment_method: str
    status: Status
    currency: str
    amount: int
    amount_captured: int = 0
    amount_refunded: int = 0
    failure_code: str | None = None
    # Grows with each change, so that a late webhook can be detected.
    version: int = 1
    create_time: str
    # When it expires unless the customer acts, or it is captured.
    expires_at: str | None = None
    # Where the customer acts.
    action_url: str | None = None
    dispute_id: str | None = None
    dispute_due_at: str | None = None
    # What happens next by itself, and when.
    next_action: str | None = None
    next_time: str | None = None


def new(*, reference: str, payment_method: str, amount: int, currency: str, failure_code: str | None) -> Payment:
    """Return a payment that is authorized, or failed with the code."""
    return Payment(
        id=f"pay_{secrets.token_hex(12)}",
        reference=reference,
        payment_method=payment_method,
        status=Status.FAILED if failure_code else Status.AUTHORIZED,
        currency=currency,
        amount=amount,
        failure_code=failure_code,
        create_time=timestamp(),
    )


def capture(payment: Payment, amount: int) -> Payment:
    """Capture once, in whole or in part; the rest of the authorization is released. Raises ApiError."""
    if payment.status is not Status.AUTHORIZED:
        raise wrong_status(payment, "payment_not_capturable")
    if amount > payment.amount:
        raise ApiError(422, "amount_exceeds_authorized", "more than was authorized", param="amount")
    return replace(
        payment,
        status=Status.CAPTURED,
        amount_captured=amount,
        version=payment.version + 1,
        expires_at=None,
        next_action=None,
        next_time=None,
    )


def void(payment: Payment) -> Payment:
    """Void an authorized payment, or one that waits for the customer. Raises ApiError."""
    if payment.status not in (Status.AUTHORIZED, Status.REQUIRES_ACTION):
        raise wrong_status(payment, "payment_not_voidable")
    ended = replace(payment, expires_at=None, next_action=None, next_time=None)
    return replace(ended, status=Status.VOIDED, version=payment.version + 1)


def refund(payment: Payment, amount: int) -> Payment:
    """Refund up to the captured amount, in parts. Raises ApiError."""
    if payment.status not in (Status.CAPTURED, Status.PARTIALLY_REFUNDED):
        raise wrong_status(payment, "payment_not_refundable")
    refunded = payment.amount_refunded + amount
    if refunded > payment.amount_captured:
        raise ApiError(422, "amount_exceeds_captured", "more than the rest of the captured amount", param="amount")
    status = Status.REFUNDED if refunded == payment.amount_captured else Status.PARTIALLY_REFUNDED
    return replace(payment, status=status, amount_refunded=refunded, version=payment.version + 1)


def find(store: SqliteStore, *, payment_id: str | None = None, reference: str | None = None) -> Payment | None:
    """Return the payment with this id or reference."""
    sql = "SELECT * FROM payments LEFT JOIN waits USING (id) WHERE id = :id OR reference = :reference"
    row = store.row(sql, id=payment_id, reference=reference)
    return Payment(**dict(row) | {"status": Status(row["status"])}) if row else None


def save(store: SqliteStore, payment: Payment, kind: Kind, amount: int, key: str) -> None:
    """Write the payment and its last operation, in the caller's transaction."""
    values = asdict(payment)
    store.execute(
        "INSERT INTO payments VALUES (:id, :reference, :payment_method, :status, :currency, :amount,"
        " :amount_captured, :amount_refunded, :failure_code, :version, :create_time)"
        " ON CONFLICT (id) DO UPDATE SET status = excluded.status, version = excluded.version,"
        " amount_captured = excluded.amount_captured, amount_refunded = excluded.amount_refunded,"
        " failure_code = excluded.failure_code",
        **values,
    )
    store.execute(
        "INSERT OR REPLACE INTO waits VALUES (:id, :expires_at, :action_url, :dispute_id, :dispute_due_at,"
        " :next_action, :next_time)",
        **values,
    )
    store.execute(
        "INSERT INTO operations (id, payment_id, kind, amount, idempotency_key, create_time)"
        " VALUES (:id, :payment_id, :kind, :amount, :key, :now)",
        id=f"op_{secrets.token_hex(12)}",
        payment_id=payment.id,
        kind=kind,
        amount=amount,
        key=key,
        now=timestamp(),
    )


def as_json(store: SqliteStore, payment: Payment) -> dict[str, Any]:
    """Return a payment with all its operations, as replies, lists and events contain it."""
    operations = store.rows(
        "SELECT id, kind, amount, idempotency_key, create_time FROM operations"
        " WHERE payment_id = :id ORDER BY sequence",
        id=payment.id,
    )
    shown = {name: value for name, value in asdict(payment).items() if name not in _HIDDEN}
    return shown | {"operations": [dict(operation) for operation in operations]}


def wrong_status(payment: Payment, code: str) -> ApiError:
    """Return the error of a change that the payment's status does not allow."""
    return ApiError(409, code, f"the payment is {payment.status}")
