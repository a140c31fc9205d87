"""The provider's state of a payment, and what it changes. Pure: no I/O, no clock, no proto."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from svc_payment.domain import Entry, EntryStatus, OperationKind, Payment, State


@dataclass(frozen=True, slots=True)
class _Meaning:
    """What an operation of the provider is in our ledger, and the state that it leads to."""

    kind: OperationKind
    status: EntryStatus
    state: State | None
    reason: str = ""


_MEANINGS = {
    "requires_action": _Meaning(OperationKind.AUTHORIZATION, EntryStatus.ACTION_REQUIRED, State.REQUIRES_ACTION),
    "authorized": _Meaning(OperationKind.AUTHORIZATION, EntryStatus.SUCCESS, State.AUTHORIZED),
    "reauthorized": _Meaning(OperationKind.AUTHORIZATION, EntryStatus.SUCCESS, State.AUTHORIZED),
    "failed": _Meaning(OperationKind.AUTHORIZATION, EntryStatus.FAILURE, State.FAILED, "declined"),
    "cancelled": _Meaning(OperationKind.AUTHORIZATION, EntryStatus.FAILURE, State.VOIDED, "cancelled"),
    "action_expired": _Meaning(OperationKind.AUTHORIZATION, EntryStatus.FAILURE, State.EXPIRED, "action_expired"),
    "expired": _Meaning(OperationKind.EXPIRY, EntryStatus.SUCCESS, State.EXPIRED),
    "captured": _Meaning(OperationKind.CHARGE, EntryStatus.SUCCESS, State.CAPTURED),
    "refunded": _Meaning(OperationKind.REFUND, EntryStatus.SUCCESS, State.PARTIALLY_REFUNDED),
    "voided": _Meaning(OperationKind.CANCEL, EntryStatus.SUCCESS, State.VOIDED),
    "evidence_submitted": _Meaning(OperationKind.EVIDENCE, EntryStatus.SUCCESS, None),
    "dispute_accepted": _Meaning(OperationKind.ACCEPTANCE, EntryStatus.SUCCESS, None),
    "disputed": _Meaning(OperationKind.CHARGEBACK, EntryStatus.REQUEST, State.DISPUTED),
    "dispute_won": _Meaning(OperationKind.CHARGEBACK, EntryStatus.FAILURE, State.CAPTURED),
    "charged_back": _Meaning(OperationKind.CHARGEBACK, EntryStatus.SUCCESS, State.CHARGED_BACK),
}


class Status(StrEnum):
    """The provider's states of a payment."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation that the provider executed; `key` is its idempotency key, or the id of a dispute."""

    id: str
    kind: str
    amount: int
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderPayment:
    """The provider's state of a payment; `reference` is our id of it, and `version` grows with each change."""

    id: str
    reference: str
    status: Status
    currency: str
    amount: int
    amount_captured: int
    amount_refunded: int
    failure_code: str | None
    version: int
    operations: tuple[Operation, ...]
    #: When it expires unless the customer acts, or it is captured.
    expire_time: datetime | None = None
    action_url: str = ""
    dispute_due_time: datetime | None = None

    def matches(self, *, reference: str, amount: int, currency: str) -> bool:
        """Return whether it is the payment that we requested; nothing of another one is applied."""
        return (self.reference, self.amount, self.currency) == (reference, amount, currency)


class ProviderMismatch(Exception):
    """The provider has something else under our reference than what we requested; nothing of it is applied."""


def apply_provider_state(payment: Payment, fetched: ProviderPayment) -> Payment:
    """Record the provider's operations that are not in the ledger; raises ProviderMismatch.

    It adds and never removes, so states may be applied in any order and more than once.
    """
    if not fetched.matches(reference=payment.id, amount=payment.amount, currency=payment.currency):
        raise ProviderMismatch
    if payment.provider_id not in (None, fetched.id):
        raise ProviderMismatch
    new = [operation for operation in fetched.operations if not _is_recorded(payment, operation)]
    payment = replace(payment, provider_id=fetched.id)
    if new:
        payment = replace(
            payment,
            action_url=fetched.action_url,
            expire_time=fetched.expire_time,
            dispute_due_time=fetched.dispute_due_time,
        )
    for operation in new:
        meaning = _meaning(operation)
        payment = _record(payment, _entry(payment, operation, meaning, fetched.failure_code), meaning.state)
    return payment


def is_known(payment: Payment, reported: ProviderPayment) -> bool:
    """Return whether a reported state holds nothing that is not recorded; False for one that does not match."""
    try:
        return apply_provider_state(payment, reported) == payment
    except ProviderMismatch:
        return False


def fail_operation(payment: Payment, operation_id: str, code: str) -> Payment:
    """Record that the provider declined an operation; unchanged when the operation has a result."""
    request = next((entry for entry in payment.pending if entry.operation_id == operation_id), None)
    if request is None:
        return payment
    is_authorization = request.kind is OperationKind.AUTHORIZATION
    return _record(payment, _failure(request, code), State.FAILED if is_authorization else None)


def expire_authorization(payment: Payment) -> Payment:
    """Void a payment whose authorization never reached the provider.

    If it reaches the provider after all, that is an operation of its own, and its funds are released.
    """
    request = next((entry for entry in payment.pending if entry.kind is OperationKind.AUTHORIZATION), None)
    if request is None:
        return payment
    return payment.with_entry(_failure(request, "never_arrived")).transition_to(State.VOIDED)


def _is_recorded(payment: Payment, operation: Operation) -> bool:
    recorded = next((entry for entry in payment.ledger_entries if entry.reference == operation.id), None)
    if recorded and recorded.amount != operation.amount:
        raise ProviderMismatch
    return recorded is not None


def _meaning(operation: Operation) -> _Meaning:
    if operation.kind not in _MEANINGS:
        raise ProviderMismatch
    return _MEANINGS[operation.kind]


def _entry(payment: Payment, operation: Operation, meaning: _Meaning, failure_code: str | None) -> Entry:
    """Return the entry of an operation that we requested, or of one by the customer, the bank or the provider."""
    kind = meaning.kind
    requests = (entry for entry in payment.pending if (entry.operation_id, entry.kind) == (operation.key, kind))
    request = next(requests, None)
    if request and request.amount != operation.amount:
        raise ProviderMismatch
    of_dispute = kind is OperationKind.CHARGEBACK
    return Entry(
        operation_id=operation.key if request or of_dispute else operation.id,
        kind=kind,
        status=meaning.status,
        amount=operation.amount,
        reference=operation.id,
        reason=(operation.kind == "failed" and failure_code) or meaning.reason,
    )


def _failure(request: Entry, code: str) -> Entry:
    return replace(request, status=EntryStatus.FAILURE, reason=code, id=0, create_time=None)


def _record(payment: Payment, entry: Entry, state: State | None) -> Payment:
    """Append an entry, and make the transition that it leads to."""
    payment = payment.with_entry(entry)
    if state is None or (state in (State.REQUIRES_ACTION, State.AUTHORIZED) and payment.is_voiding):
        return payment
    if state is State.PARTIALLY_REFUNDED and not payment.funds_held:
        state = State.REFUNDED
    if state is State.CAPTURED and payment.refunded:
        state = State.PARTIALLY_REFUNDED  # where it was before a dispute that was won
    return payment.transition_to(state)
