"""Converts requests to the domain objects of svc_payment, and those to messages and events."""

import re
from datetime import datetime
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money

from chassis import timestamp
from chassis.types.money import minor_units, money
from shop.payment.v1 import payment_events_pb2 as events
from shop.payment.v1 import payment_service_pb2 as pb
from svc_payment import domain_requests, provider
from svc_payment.domain import Entry, Method, OperationKind, Payment, State


def payment_from_request(request: pb.AuthorizePaymentRequest) -> Payment:
    """Return the new payment that a request authorizes; raises InvalidRequest for a fraction of a minor unit."""
    return domain_requests.start_payment(
        payment_id=request.payment_id,
        order_id=request.order_id,
        user_id=request.user_id,
        amount=minor_units(request.amount, "amount"),
        currency=request.amount.currency_code,
        token=request.payment_method_token,
    )


def amount_from_request(
    payment: Payment, request: pb.CapturePaymentRequest | pb.RefundPaymentRequest | pb.RefundOrderPaymentRequest
) -> int | None:
    """Return the amount of a request in minor units, None for one without; raises CurrencyMismatch."""
    if not request.HasField("amount"):
        return None
    domain_requests.check_currency(payment, request.amount.currency_code)
    return minor_units(request.amount, "amount")


def payment_to_proto(payment: Payment) -> pb.Payment:
    """Return a payment that was read from the database."""
    assert payment.create_time is not None
    assert payment.update_time is not None
    expires = payment.state in (State.REQUIRES_ACTION, State.AUTHORIZED)
    return pb.Payment(
        payment_id=payment.id,
        order_id=payment.order_id,
        user_id=payment.user_id,
        state=_state(payment.state),
        amount=_money(payment, payment.amount),
        authorized_amount=_money(payment, payment.authorized),
        captured_amount=_money(payment, payment.captured),
        refunded_amount=_money(payment, payment.refunded),
        method=method_to_proto(payment.method),
        decline_code=payment.decline_code,
        transactions=[_transaction(payment, entry) for entry in payment.ledger_entries],
        etag=str(payment.version),
        create_time=timestamp(payment.create_time),
        update_time=timestamp(payment.update_time),
        action_url=payment.action_url if payment.state is State.REQUIRES_ACTION else "",
        expire_time=_time(payment.expire_time) if expires else None,
        dispute_due_time=_time(payment.dispute_due_time) if payment.state is State.DISPUTED else None,
        pending_refund_amount=_money(payment, payment.refunds_requested) if payment.refunds_requested else None,
    )


def method_from_provider(method: provider.PaymentMethod) -> Method:
    """Return what may be shown of a payment method."""
    last4 = method.last4 if re.fullmatch("[0-9]{4}", method.last4) else ""
    return Method(kind=method.kind.upper(), brand=method.brand, last4=last4)


def method_to_proto(method: Method) -> pb.PaymentMethod:
    """Return a payment method; a kind that the contract does not name becomes UNSPECIFIED."""
    kinds = dict(pb.PaymentMethodKind.items())
    kind = kinds.get(f"PAYMENT_METHOD_KIND_{method.kind}", pb.PAYMENT_METHOD_KIND_UNSPECIFIED)
    return pb.PaymentMethod(kind=kind, card_brand=method.brand, card_last4=method.last4)


def payment_started_event(payment: Payment) -> Message:
    """Return the event of a payment that was started."""
    return events.PaymentStarted(
        payment_id=payment.id,
        version=payment.version,
        order_id=payment.order_id,
        user_id=payment.user_id,
        amount=_money(payment, payment.amount),
    )


def payment_event(payment: Payment) -> Message:  # noqa: PLR0911  a table
    """Return the event of a payment that has reached its state."""
    heading: dict[str, Any] = {"payment_id": payment.id, "version": payment.version, "order_id": payment.order_id}
    last = payment.ledger_entries[-1]
    match payment.state:
        case State.REQUIRES_ACTION:
            expire_time = _time(payment.expire_time)
            return events.PaymentActionRequired(**heading, user_id=payment.user_id, expire_time=expire_time)
        case State.AUTHORIZED:
            amount = _money(payment, payment.authorized)
            return events.PaymentAuthorized(**heading, amount=amount, expire_time=_time(payment.expire_time))
        case State.VOIDED:
            return events.PaymentVoided(**heading)
        case State.FAILED:
            return events.PaymentFailed(**heading, decline_code=payment.decline_code)
        case State.EXPIRED:
            before = State.AUTHORIZED if last.kind is OperationKind.EXPIRY else State.REQUIRES_ACTION
            return events.PaymentExpired(**heading, previous_state=_state(before))
        case State.DISPUTED:
            due_time = _time(payment.dispute_due_time)
            return events.PaymentDisputed(**heading, amount=_money(payment, last.amount), due_time=due_time)
        case _ if last.kind is OperationKind.CHARGEBACK:
            amount = _money(payment, last.amount)
            return events.PaymentDisputeClosed(**heading, state=_state(payment.state), amount=amount)
        case State.CAPTURED:
            return events.PaymentCaptured(**heading, amount=_money(payment, payment.captured))
        case State.PARTIALLY_REFUNDED | State.REFUNDED:
            return events.PaymentRefunded(
                **heading,
                amount=_money(payment, last.amount),
                refunded_total=_money(payment, payment.refunded),
                state=_state(payment.state),
            )
        case _:
            raise AssertionError(f"no transition leads to {payment.state.name}")


def _transaction(payment: Payment, entry: Entry) -> pb.PaymentTransaction:
    assert entry.create_time is not None
    return pb.PaymentTransaction(
        transaction_id=str(entry.id),
        kind=pb.TransactionKind.Value(f"TRANSACTION_KIND_{entry.kind.name}"),
        outcome=pb.TransactionOutcome.Value(f"TRANSACTION_OUTCOME_{entry.status.name}"),
        amount=_money(payment, entry.amount),
        reason="" if entry.kind is OperationKind.EVIDENCE else entry.reason,  # the customer reads this, too
        create_time=timestamp(entry.create_time),
    )


def _time(moment: datetime | None) -> Timestamp | None:
    return timestamp(moment) if moment else None


def _state(state: State) -> pb.PaymentState.ValueType:
    return pb.PaymentState.Value(f"PAYMENT_STATE_{state.name}")


def _money(payment: Payment, amount: int) -> Money:
    return money(amount, payment.currency)
