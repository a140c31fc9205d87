"""What may be requested of a payment, and the attempts at what is pending. Pure: no I/O, no clock, no proto."""

import hashlib
from dataclasses import replace
from datetime import datetime

from shop.payment.v1.payment_errors import (
    CaptureExceedsAuthorization,
    CurrencyMismatch,
    PaymentIdTaken,
    PaymentStateConflict,
    RefundExceedsCapture,
)
from svc_payment.domain import Entry, EntryStatus, OperationKind, Payment, State


def start_payment(*, payment_id: str, order_id: str, user_id: str, amount: int, currency: str, token: str) -> Payment:
    """Return a new payment, which requests its authorization under its own id."""
    request = Entry(
        operation_id=payment_id, kind=OperationKind.AUTHORIZATION, status=EntryStatus.REQUEST, amount=amount
    )
    return Payment(
        id=payment_id,
        order_id=order_id,
        user_id=user_id,
        amount=amount,
        currency=currency,
        token=token,
        fingerprint=fingerprint_of(token),
        ledger_entries=(request,),
    )


def fingerprint_of(token: str) -> str:
    """Return what identifies a payment method without its token."""
    return hashlib.sha256(token.encode()).hexdigest()


def check_same(existing: Payment, requested: Payment) -> None:
    """Raise PaymentIdTaken unless an existing payment has the contents of the requested one."""
    if _contents(existing) != _contents(requested):
        raise PaymentIdTaken(payment_id=requested.id)


def check_currency(payment: Payment, currency: str) -> None:
    """Raise CurrencyMismatch unless an amount is in the payment's currency."""
    if currency != payment.currency:
        raise CurrencyMismatch(expected=payment.currency, actual=currency)


def request_capture(payment: Payment, amount: int | None, operation_id: str) -> Payment:
    """Request to capture `amount`, None for all that is authorized; unchanged when that is done or pending.

    A method that captures at once may have captured more, which is refunded by requests of its own.
    Raises PaymentStateConflict and CaptureExceedsAuthorization.
    """
    pending = next((request for request in payment.pending if request.kind is OperationKind.CHARGE), None)
    if existing := payment.captured or (pending and pending.amount):
        too_much = payment.is_captured_at_once and amount is not None and amount < existing
        if amount not in (None, existing) and not too_much:
            raise _conflict(payment, f"{State.CAPTURED.name} with another amount")
        return payment
    if payment.state is not State.AUTHORIZED or payment.is_voiding:
        raise _conflict(payment, State.CAPTURED.name)
    if amount is not None and amount > payment.authorized:
        raise CaptureExceedsAuthorization(authorized=_text(payment, payment.authorized))
    return _request(payment, operation_id, OperationKind.CHARGE, payment.authorized if amount is None else amount)


def request_refund(payment: Payment, amount: int | None, reason: str, operation_id: str) -> Payment:
    """Request to refund `amount`, None for all that is left; raises PaymentStateConflict and RefundExceedsCapture."""
    if not payment.captured or payment.state in (State.DISPUTED, State.CHARGED_BACK):
        raise _conflict(payment, State.REFUNDED.name)
    refund = payment.refundable if amount is None else amount
    if not 0 < refund <= payment.refundable:
        raise RefundExceedsCapture(
            refundable=_text(payment, payment.refundable), refunded=_text(payment, payment.refunded)
        )
    return _request(payment, operation_id, OperationKind.REFUND, refund, reason)


def request_reauthorization(payment: Payment, operation_id: str) -> Payment:
    """Request the amount anew after its authorization has expired; unchanged when it is authorized or requested.

    Raises PaymentStateConflict.
    """
    if payment.state is State.AUTHORIZED and not payment.is_voiding:
        return payment
    has_expired = any(entry.kind is OperationKind.EXPIRY for entry in payment.ledger_entries)
    if payment.state is not State.EXPIRED or payment.is_voiding or not has_expired:
        raise _conflict(payment, State.AUTHORIZED.name)
    return payment if payment.pending else _request(payment, operation_id, OperationKind.AUTHORIZATION, payment.amount)


def request_void(payment: Payment, now: datetime, reason: str) -> Payment:
    """Request that the payment ends without funds; unchanged when it already does."""
    if payment.is_voiding or payment.state in (State.REFUNDED, State.CHARGED_BACK):
        return payment
    return replace(payment, void_request_time=now, void_reason=reason)


def begin_attempt(payment: Payment, operation_id: str, *, is_retry: bool) -> Payment:
    """Claim the payment for an attempt at what is left to do; unchanged, with no attempts, when nothing is.

    Only a retry adds to the attempts that the backoff counts: new work is not delayed by failures of earlier work.
    """
    if payment.settled and not payment.attempts:
        return payment
    attempts = (payment.attempts if is_retry else min(payment.attempts, 1)) + 1
    return replace(release_funds(payment, operation_id), attempts=attempts, claims=payment.claims + 1)


def release_funds(payment: Payment, operation_id: str) -> Payment:
    """Request what releases the funds of a voiding payment, one operation at a time."""
    if not payment.is_voiding or not payment.funds_held or payment.pending or payment.state is State.DISPUTED:
        return payment
    kind = OperationKind.REFUND if payment.captured else OperationKind.CANCEL
    return _request(payment, operation_id, kind, payment.funds_held, payment.void_reason)


def _request(payment: Payment, operation_id: str, kind: OperationKind, amount: int, reason: str = "") -> Payment:
    entry = Entry(operation_id=operation_id, kind=kind, status=EntryStatus.REQUEST, amount=amount, reason=reason)
    return payment.with_entry(entry)


def _contents(payment: Payment) -> tuple[object, ...]:
    return (payment.id, payment.order_id, payment.user_id, payment.amount, payment.currency, payment.fingerprint)


def _conflict(payment: Payment, wanted: str) -> PaymentStateConflict:
    state = payment.state.name if payment.void_request_time is None else "GIVEN_UP"
    return PaymentStateConflict(payment_id=payment.id, state=state, wanted=wanted)


def _text(payment: Payment, amount: int) -> str:
    return f"{amount} minor units of {payment.currency}"
