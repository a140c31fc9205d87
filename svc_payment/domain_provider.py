"""The provider's state of a payment, and what it changes. Pure: no I/O, no clock, no proto."""

from dataclasses import dataclass, replace
from enum import StrEnum

from svc_payment.domain import Entry, EntryStatus, OperationKind, Payment, State

_KINDS = {
    "authorized": OperationKind.AUTHORIZATION,
    "failed": OperationKind.AUTHORIZATION,
    "captured": OperationKind.CHARGE,
    "refunded": OperationKind.REFUND,
    "voided": OperationKind.CANCEL,
}

_LEADS_TO = {
    (OperationKind.AUTHORIZATION, EntryStatus.SUCCESS): State.AUTHORIZED,
    (OperationKind.AUTHORIZATION, EntryStatus.FAILURE): State.FAILED,
    (OperationKind.CHARGE, EntryStatus.SUCCESS): State.CAPTURED,
    (OperationKind.REFUND, EntryStatus.SUCCESS): State.PARTIALLY_REFUNDED,
    (OperationKind.CANCEL, EntryStatus.SUCCESS): State.VOIDED,
}


class Status(StrEnum):
    """The provider's states of a payment."""

    AUTHORIZED = "authorized"
    CAPTURED = "captured"
    PARTIALLY_REFUNDED = "partially_refunded"
    REFUNDED = "refunded"
    VOIDED = "voided"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation that the provider executed; `kind` is a word of `Status`, `key` its idempotency key."""

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
    payment = replace(payment, provider_id=fetched.id)
    for operation in fetched.operations:
        if not _is_recorded(payment, operation):
            payment = _record_result(payment, _result(payment, operation, fetched.failure_code))
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
    return _record_result(payment, _failure(request, code)) if request else payment


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


def _result(payment: Payment, operation: Operation, failure_code: str | None) -> Entry:
    """Return the result of the operation that we requested, or of one that the provider's staff executed."""
    if operation.kind not in _KINDS:
        raise ProviderMismatch
    kind = _KINDS[operation.kind]
    requests = (entry for entry in payment.pending if (entry.operation_id, entry.kind) == (operation.key, kind))
    request = next(requests, None)
    if request and request.amount != operation.amount:
        raise ProviderMismatch
    failed = operation.kind == "failed"
    return Entry(
        operation_id=request.operation_id if request else operation.id,
        kind=kind,
        status=EntryStatus.FAILURE if failed else EntryStatus.SUCCESS,
        amount=operation.amount,
        reference=operation.id,
        reason=(failure_code or "declined") if failed else "",
    )


def _failure(request: Entry, code: str) -> Entry:
    return replace(request, status=EntryStatus.FAILURE, reason=code, id=0, create_time=None)


def _record_result(payment: Payment, result: Entry) -> Payment:
    """Append an operation's result, and make the transition that it leads to."""
    payment = payment.with_entry(result)
    state = _LEADS_TO.get((result.kind, result.status))
    if state is None or (state is State.AUTHORIZED and payment.is_voiding):
        return payment
    if state is State.PARTIALLY_REFUNDED and not payment.funds_held:
        state = State.REFUNDED
    return payment.transition_to(state)
