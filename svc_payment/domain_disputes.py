"""What the shop may respond to a dispute. Pure: no I/O, no clock, no proto."""

from shop.payment.v1.payment_errors import PaymentStateConflict
from svc_payment.domain import Entry, EntryStatus, OperationKind, Payment, State


def request_evidence(payment: Payment, evidence: str, operation_id: str) -> Payment:
    """Request to submit evidence against the open dispute; raises PaymentStateConflict when there is none."""
    return _respond(payment, OperationKind.EVIDENCE, operation_id, evidence)


def request_acceptance(payment: Payment, operation_id: str) -> Payment:
    """Request to accept the open dispute; unchanged when that is requested. Raises PaymentStateConflict."""
    if any(entry.kind is OperationKind.ACCEPTANCE for entry in payment.pending):
        return payment
    return _respond(payment, OperationKind.ACCEPTANCE, operation_id)


def _respond(payment: Payment, kind: OperationKind, operation_id: str, evidence: str = "") -> Payment:
    if payment.state is not State.DISPUTED:
        raise PaymentStateConflict(payment_id=payment.id, state=payment.state.name, wanted=f"DISPUTED with {kind.name}")
    disputed = [entry.amount for entry in payment.ledger_entries if entry.kind is OperationKind.CHARGEBACK]
    request = Entry(
        operation_id=operation_id, kind=kind, status=EntryStatus.REQUEST, amount=disputed[-1], reason=evidence
    )
    return payment.with_entry(request)
