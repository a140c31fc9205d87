"""Payments: what they hold, and what may be asked of the provider. Pure: no I/O, no clock, no proto.

A payment moves PROCESSING -> AUTHORIZED -> CAPTURED -> PARTIALLY_REFUNDED -> REFUNDED; PROCESSING or AUTHORIZED ->
VOIDED; PROCESSING -> FAILED. Its amounts, in minor units, are sums over its entries. An entry asks (REQUEST) under an
operation id, which is also the operation's key at the provider, or ends an operation (SUCCESS, FAILURE).
"""

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum

from shop.payment.v1.payment_errors import (
    CaptureExceedsAuthorization,
    CurrencyMismatch,
    PaymentIdTaken,
    PaymentStateConflict,
    RefundExceedsCapture,
)


class State(Enum):
    """Where a payment stands. The contract's other states wait for a provider that knows them."""

    PROCESSING = "PROCESSING"
    AUTHORIZED = "AUTHORIZED"
    CAPTURED = "CAPTURED"
    PARTIALLY_REFUNDED = "PARTIALLY_REFUNDED"
    REFUNDED = "REFUNDED"
    VOIDED = "VOIDED"
    FAILED = "FAILED"


#: The legal moves.
_MOVES: frozenset[tuple[State, State]] = frozenset(
    {
        (State.PROCESSING, State.AUTHORIZED),
        (State.PROCESSING, State.CAPTURED),
        (State.PROCESSING, State.VOIDED),
        (State.PROCESSING, State.FAILED),
        (State.AUTHORIZED, State.CAPTURED),
        (State.AUTHORIZED, State.VOIDED),
        (State.CAPTURED, State.PARTIALLY_REFUNDED),
        (State.CAPTURED, State.REFUNDED),
        (State.PARTIALLY_REFUNDED, State.PARTIALLY_REFUNDED),
        (State.PARTIALLY_REFUNDED, State.REFUNDED),
    }
)


class Kind(Enum):
    """What an operation is."""

    AUTHORIZATION = "AUTHORIZATION"
    CHARGE = "CHARGE"
    REFUND = "REFUND"
    CANCEL = "CANCEL"


class EntryStatus(Enum):
    """What an entry says of its operation."""

    REQUEST = "REQUEST"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """What a customer pays with, as far as it may be shown."""

    kind: str = ""
    brand: str = ""
    last4: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of a payment's append-only record."""

    operation_id: str
    kind: Kind
    outcome: EntryStatus
    amount: int
    #: The provider's id of what it did.
    reference: str | None = None
    reason: str = ""
    #: Given by the database, like the next.
    id: int = 0
    create_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """The money of one order."""

    id: str
    order_id: str
    user_id: str
    amount: int
    currency: str
    token: str = field(repr=False)
    method: Method = Method()
    state: State = State.PROCESSING
    entries: tuple[Entry, ...]
    #: The provider's id of this payment, once it is known.
    provider_id: str | None = None
    #: When it was given up: from then on whatever it holds is let go.
    give_up_time: datetime | None = None
    give_up_reason: str = ""
    #: How often in a row the provider was asked without an answer that settles what is pending.
    attempts: int = 0
    #: Grows by one with every event.
    version: int = 1
    create_time: datetime | None = None
    update_time: datetime | None = None
    #: The payment after each move since it was read: what there is to tell.
    moves: "tuple[Payment, ...]" = field(default=(), compare=False, repr=False)

    @property
    def authorized(self) -> int:
        """What the provider has promised."""
        return self._sum(Kind.AUTHORIZATION)

    @property
    def captured(self) -> int:
        """What was charged."""
        return self._sum(Kind.CHARGE)

    @property
    def refunded(self) -> int:
        """What of it was given back."""
        return self._sum(Kind.REFUND)

    @property
    def refundable(self) -> int:
        """What can still be given back when every refund that is pending succeeds."""
        asked = sum(entry.amount for entry in self.pending if entry.kind is Kind.REFUND)
        return self.captured - self.refunded - asked

    @property
    def held(self) -> int:
        """Money of the customer that the provider keeps for us."""
        if self.captured:
            return self.captured - self.refunded
        return self.authorized - self._sum(Kind.CANCEL)

    @property
    def pending(self) -> tuple[Entry, ...]:
        """The requests whose operation has not ended, oldest first."""
        return tuple(
            one for one in self.entries if one.outcome is EntryStatus.REQUEST and not self.end(one.operation_id)
        )

    @property
    def unwanted(self) -> bool:
        """Whether it must not hold any money in the end."""
        return self.give_up_time is not None or self.state in (State.FAILED, State.VOIDED)

    @property
    def settled(self) -> bool:
        """Whether nothing is left to do at the provider."""
        return not self.pending and not (self.unwanted and self.held)

    @property
    def decline_code(self) -> str:
        """Why the provider refused to promise the amount."""
        end = self.end(self.id)
        return end.reason if end and end.outcome is EntryStatus.FAILURE and self.state is State.FAILED else ""

    def end(self, operation_id: str) -> Entry | None:
        """Return the entry that ended an operation."""
        ends = (
            one for one in self.entries if one.outcome is not EntryStatus.REQUEST and one.operation_id == operation_id
        )
        return next(ends, None)

    def with_entry(self, entry: Entry) -> "Payment":
        """Return the payment with one more entry."""
        return replace(self, entries=(*self.entries, entry))

    def moved(self, to: State) -> "Payment":
        """Return the payment in another state; where that is not a legal move, as it is: it never goes back."""
        if (self.state, to) not in _MOVES:
            return self
        moved = replace(self, state=to, version=self.version + 1)
        return replace(moved, moves=(*self.moves, moved))

    def _sum(self, kind: Kind) -> int:
        return sum(one.amount for one in self.entries if one.kind is kind and one.outcome is EntryStatus.SUCCESS)


def begin(*, payment_id: str, order_id: str, user_id: str, amount: int, currency: str, token: str) -> Payment:
    """Return a new payment, which asks for its authorization under its own id."""
    asked = Entry(operation_id=payment_id, kind=Kind.AUTHORIZATION, outcome=EntryStatus.REQUEST, amount=amount)
    return Payment(
        id=payment_id,
        order_id=order_id,
        user_id=user_id,
        amount=amount,
        currency=currency,
        token=token,
        entries=(asked,),
    )


def check_same(known: Payment, wanted: Payment) -> None:
    """Raise PaymentIdTaken unless a payment that exists is the one that is to be begun."""
    if _contents(known) != _contents(wanted):
        raise PaymentIdTaken(payment_id=wanted.id)


def check_currency(payment: Payment, currency: str) -> None:
    """Raise CurrencyMismatch unless an amount is in the payment's currency."""
    if currency != payment.currency:
        raise CurrencyMismatch(expected=payment.currency, actual=currency)


def charge(payment: Payment, amount: int | None, operation_id: str) -> Payment:
    """Ask to charge `amount`, None for all that is authorized; the same payment when that is done or under way."""
    under_way = next((one for one in payment.pending if one.kind is Kind.CHARGE), None)
    if done := payment.captured or (under_way and under_way.amount):
        if amount not in (None, done):
            raise _conflict(payment, f"{State.CAPTURED.name} with another amount")
        return payment
    if payment.state is not State.AUTHORIZED or payment.unwanted:
        raise _conflict(payment, State.CAPTURED.name)
    if amount is not None and amount > payment.authorized:
        raise CaptureExceedsAuthorization(authorized=_text(payment, payment.authorized))
    return _ask(payment, operation_id, Kind.CHARGE, payment.authorized if amount is None else amount)


def refund(payment: Payment, amount: int | None, reason: str, operation_id: str) -> Payment:
    """Ask to give `amount` back, None for all that is left."""
    if not payment.captured:
        raise _conflict(payment, State.REFUNDED.name)
    wanted = payment.refundable if amount is None else amount
    if not 0 < wanted <= payment.refundable:
        raise RefundExceedsCapture(
            refundable=_text(payment, payment.refundable), refunded=_text(payment, payment.refunded)
        )
    return _ask(payment, operation_id, Kind.REFUND, wanted, reason)


def give_up(payment: Payment, now: datetime, reason: str) -> Payment:
    """Want the payment to end without money; the same payment when it is so already."""
    if payment.unwanted or payment.state is State.REFUNDED:
        return payment
    # What is wanted now is new: whatever was asked in vain before does not put it off.
    return replace(payment, give_up_time=now, give_up_reason=reason, attempts=min(payment.attempts, 1))


def take_up(payment: Payment, operation_id: str) -> Payment:
    """Count an attempt at what is left to do; a payment that needs nothing is the same, and has none."""
    if payment.settled and not payment.attempts:
        return payment
    return replace(let_go(payment, operation_id), attempts=payment.attempts + 1)


def let_go(payment: Payment, operation_id: str) -> Payment:
    """Ask for what rids an unwanted payment of the money it holds, one operation at a time."""
    if not payment.unwanted or not payment.held or payment.pending:
        return payment
    kind = Kind.REFUND if payment.captured else Kind.CANCEL
    return _ask(payment, operation_id, kind, payment.held, payment.give_up_reason)


def _ask(payment: Payment, operation_id: str, kind: Kind, amount: int, reason: str = "") -> Payment:
    asked = Entry(operation_id=operation_id, kind=kind, outcome=EntryStatus.REQUEST, amount=amount, reason=reason)
    return payment.with_entry(asked)


def _contents(payment: Payment) -> tuple[object, ...]:
    return (payment.id, payment.order_id, payment.user_id, payment.amount, payment.currency, payment.token)


def _conflict(payment: Payment, wanted: str) -> PaymentStateConflict:
    given_up = payment.give_up_time is not None
    return PaymentStateConflict(
        payment_id=payment.id, state="GIVEN_UP" if given_up else payment.state.name, wanted=wanted
    )


def _text(payment: Payment, amount: int) -> str:
    return f"{amount} minor units of {payment.currency}"
