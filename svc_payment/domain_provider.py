"""The provider's word about a payment, and what it changes. Pure: no I/O, no clock, no proto."""

from dataclasses import dataclass, replace
from enum import StrEnum

from svc_payment.domain import Entry, EntryStatus, Kind, Payment, State

_KINDS = {
    "authorized": Kind.AUTHORIZATION,
    "failed": Kind.AUTHORIZATION,
    "captured": Kind.CHARGE,
    "refunded": Kind.REFUND,
    "voided": Kind.CANCEL,
}

_LEADS_TO = {
    (Kind.AUTHORIZATION, EntryStatus.SUCCESS): State.AUTHORIZED,
    (Kind.AUTHORIZATION, EntryStatus.FAILURE): State.FAILED,
    (Kind.CHARGE, EntryStatus.SUCCESS): State.CAPTURED,
    (Kind.REFUND, EntryStatus.SUCCESS): State.PARTIALLY_REFUNDED,
    (Kind.CANCEL, EntryStatus.SUCCESS): State.VOIDED,
}


class Status(StrEnum):
    """Where the provider says that a payment stands."""

    AUTHORIZED = "authorized"
    CAPTURED = "captured"
    PARTIALLY_REFUNDED = "partially_refunded"
    REFUNDED = "refunded"
    VOIDED = "voided"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One thing that the provider did to a payment; `key` is what it was asked with. `kind` is a Status's word."""

    id: str
    kind: str
    amount: int
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderPayment:
    """A payment as the provider has it; `reference` is our id of it, and `version` grows with each change."""

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
        """Whether it is the payment we asked for; to be asked before anything found or told is believed."""
        return (self.reference, self.amount, self.currency) == (reference, amount, currency)


class Disagreement(Exception):
    """The provider has something else under our reference than what we asked for; nothing of it is believed."""


def learn(payment: Payment, seen: ProviderPayment) -> Payment:
    """Record what the provider did and we did not know.

    It adds what is new and never takes back, so the order in which the provider's word arrives does not matter. Raises
    Disagreement when it is not the word that we expect.
    """
    if not seen.matches(reference=payment.id, amount=payment.amount, currency=payment.currency):
        raise Disagreement
    if payment.provider_id not in (None, seen.id):
        raise Disagreement
    payment = replace(payment, provider_id=seen.id)
    for operation in seen.operations:
        if not _knows(payment, operation):
            payment = _end(payment, _entry(payment, operation, seen.failure_code))
    return payment


def knows(payment: Payment, told: ProviderPayment) -> bool:
    """Tell whether there is nothing new in what the provider tells."""
    try:
        return learn(payment, told) == payment
    except Disagreement:
        return False


def refuse(payment: Payment, operation_id: str, code: str) -> Payment:
    """End an operation that the provider refuses; the same payment when it has ended already."""
    request = next((one for one in payment.pending if one.operation_id == operation_id), None)
    return _end(payment, _failure(request, code)) if request else payment


def lose(payment: Payment) -> Payment:
    """End the authorization of a payment that was given up and that the provider never heard of.

    Should the provider hear of it after all, that is an operation of its own, and what it holds is let go.
    """
    request = next((one for one in payment.pending if one.kind is Kind.AUTHORIZATION), None)
    if request is None:
        return payment
    return payment.with_entry(_failure(request, "never_arrived")).moved(State.VOIDED)


def _knows(payment: Payment, operation: Operation) -> bool:
    known = next((entry for entry in payment.entries if entry.reference == operation.id), None)
    if known and known.amount != operation.amount:
        raise Disagreement
    return known is not None


def _entry(payment: Payment, operation: Operation, failure_code: str | None) -> Entry:
    """Return what ends the operation that we asked for, or is one that we did not: the provider's staff acts too."""
    if operation.kind not in _KINDS:
        raise Disagreement
    kind = _KINDS[operation.kind]
    asked = next((one for one in payment.pending if (one.operation_id, one.kind) == (operation.key, kind)), None)
    if asked and asked.amount != operation.amount:
        raise Disagreement
    failed = operation.kind == "failed"
    return Entry(
        operation_id=asked.operation_id if asked else operation.id,
        kind=kind,
        outcome=EntryStatus.FAILURE if failed else EntryStatus.SUCCESS,
        amount=operation.amount,
        reference=operation.id,
        reason=(failure_code or "declined") if failed else "",
    )


def _failure(request: Entry, code: str) -> Entry:
    return replace(request, outcome=EntryStatus.FAILURE, reason=code, id=0, create_time=None)


def _end(payment: Payment, entry: Entry) -> Payment:
    """Append what ended an operation, and move where that leads."""
    payment = payment.with_entry(entry)
    to = _LEADS_TO.get((entry.kind, entry.outcome))
    if to is None or (to is State.AUTHORIZED and payment.unwanted):
        return payment
    if to is State.PARTIALLY_REFUNDED and not payment.held:
        to = State.REFUNDED
    return payment.moved(to)
