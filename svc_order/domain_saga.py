"""The saga that carries one order through the other services. Pure: no I/O, no clock, no proto.

RUNNING goes forward step by step; a refusal turns it around, and COMPENSATING undoes what was done, in reverse.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum

from shop.order.v1.order_errors import OrderNotCancellable, SagaStateConflict
from svc_order.domain import Fulfillment, Order, Payment, State


class Step(Enum):
    """The steps of a saga, in order."""

    RESERVE_STOCK = "reserve_stock"
    BOOK_SLOT = "book_slot"
    AUTHORIZE_PAYMENT = "authorize_payment"
    CONFIRM_RESERVATION = "confirm_reservation"
    #: Nothing to do but wait: the courier's events set the saga going again.
    AWAIT_SHIPMENT = "await_shipment"
    CAPTURE_PAYMENT = "capture_payment"
    FULFILL_RESERVATION = "fulfill_reservation"


_ORDER = tuple(Step)


def saga_id(order_id: str) -> str:
    """Return the id of an order's saga."""
    return f"saga-{order_id.removeprefix('order-')}"


#: What is undone when an order is given up. Confirming needs no undoing of its own: releasing covers it.
_UNDOABLE = frozenset({Step.RESERVE_STOCK, Step.BOOK_SLOT, Step.AUTHORIZE_PAYMENT})
#: From here on the parcel is on its way: the saga goes forward or waits for a person, never back.
_PIVOT = Step.CAPTURE_PAYMENT


class SagaState(Enum):
    """Where a saga stands."""

    RUNNING = "RUNNING"
    DONE = "DONE"
    COMPENSATING = "COMPENSATING"
    COMPENSATED = "COMPENSATED"
    PARKED = "PARKED"


@dataclass(frozen=True, slots=True)
class Done:
    """The step took effect, now or before."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The step did not take effect, and never will."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody can say whether the step took effect: it is repeated with the same key until somebody can."""

    reason: str


@dataclass(frozen=True, slots=True)
class Pending:
    """The other side works on it; to be asked again."""


Outcome = Done | Refused | Unknown | Pending

_MOST_ATTEMPTS = 12
_FIRST_PAUSE = timedelta(milliseconds=200)
_LONGEST_PAUSE = timedelta(seconds=15)
_ASK_AGAIN = timedelta(seconds=1)
#: A wait without an end of its own: somebody sets the saga going.
NEVER = timedelta(days=36500)


@dataclass(frozen=True, slots=True, kw_only=True)
class Saga:
    """One order's way through the other services."""

    id: str
    order_id: str
    next_attempt_time: datetime
    state: SagaState = SagaState.RUNNING
    step: Step = Step.RESERVE_STOCK
    attempts: int = 0
    #: How often a person set it going again: a try after that is a new one to the other services, not a repeat.
    retries: int = 0
    #: Why it compensates; of one that goes forward, why it is parked.
    reason: str = ""
    #: A customer's wish to cancel, granted as soon as the present step has a definite outcome.
    cancel_reason: str = ""
    #: Why it is given up, in the words of who gave it up.
    message: str = ""
    #: Where RetrySaga takes a parked one back to; any other has none.
    parked_from: SagaState | None = None
    #: Grows with every try of a step and with every outcome: whoever wakes up with an old one writes nothing.
    version: int = 1
    traceparent: str = ""

    @property
    def active(self) -> bool:
        """Whether it has a step to take."""
        return self.state in (SagaState.RUNNING, SagaState.COMPENSATING)

    @property
    def waits(self) -> bool:
        """Whether only an event from outside sets it going."""
        return self.state is SagaState.RUNNING and self.step is Step.AWAIT_SHIPMENT

    @property
    def ships(self) -> bool:
        """Whether the parcel may leave, or has left."""
        return self.waits or _ORDER.index(self.step) >= _ORDER.index(_PIVOT)

    def claimed(self, now: datetime, lease: timedelta) -> "Saga":
        """Return the saga with its present step begun; after `lease` others may take it for abandoned."""
        return replace(self, attempts=self.attempts + 1, next_attempt_time=now + lease, version=self.version + 1)

    def advanced(self, outcome: Outcome, now: datetime, jitter: float) -> "Saga":  # noqa: PLR0911  a table
        """Return the saga after its present step ended with `outcome`; `jitter` in 0..1 spreads retries."""
        match outcome:
            case Done():
                return _back(self, now) if self.state is SagaState.COMPENSATING else _forward(self, now)
            case Refused(reason):
                if self.state is SagaState.COMPENSATING or _ORDER.index(self.step) >= _ORDER.index(_PIVOT):
                    return self.parked(reason)
                return _back(replace(self, reason=self.cancel_reason or reason), now)
            case Unknown(reason):
                if self.attempts >= _MOST_ATTEMPTS:
                    return self.parked(reason)
                pause = min(_FIRST_PAUSE * 2**self.attempts, _LONGEST_PAUSE) * (0.5 + jitter / 2)
                return replace(self, next_attempt_time=now + pause, version=self.version + 1)
            case Pending():
                if self.cancel_reason and self.state is SagaState.RUNNING:
                    return _forward(self, now)
                attempts = max(0, self.attempts - 1)  # waiting for a provider is no failure
                return replace(self, attempts=attempts, next_attempt_time=now + _ASK_AGAIN, version=self.version + 1)

    def cancelled(self, now: datetime, reason: str, message: str, shipment_id: str) -> "Saga":
        """Return the saga on its way back, or with the wish noted while a step is under way; raises when too late."""
        if SagaState.COMPENSATING in (self.state, self.parked_from) or self.state is SagaState.COMPENSATED:
            return self
        if self.state is SagaState.DONE or shipment_id or _ORDER.index(self.step) >= _ORDER.index(_PIVOT):
            raise OrderNotCancellable(order_id=self.order_id, state="being shipped")
        if self.cancel_reason:
            return self
        wished = replace(self, cancel_reason=reason, message=message)
        if self.waits:
            return _back(replace(wished, reason=reason), now)
        return wished  # of the same version: whoever is at the step finds the wish when the step ends

    def shipped(self, now: datetime) -> "Saga":
        """Return the saga set going by the parcel's departure; the same saga when it does not wait for that."""
        return _at(self, Step.CAPTURE_PAYMENT, now) if self.waits else self

    def parked(self, reason: str) -> "Saga":
        """Return the saga waiting for a person; the reason to give the order up outlives any trouble in undoing it."""
        if self.state is SagaState.COMPENSATING:
            reason = self.reason
        return replace(self, state=SagaState.PARKED, parked_from=self.state, reason=reason, version=self.version + 1)

    def retried(self, now: datetime) -> "Saga":
        """Return a parked saga set going again; raises SagaStateConflict."""
        if self.parked_from is None:
            raise SagaStateConflict(saga_id=self.id, state=self.state.name, wanted=SagaState.RUNNING.name)
        reason = self.reason if self.parked_from is SagaState.COMPENSATING else ""
        back = replace(self, state=self.parked_from, parked_from=None, reason=reason, retries=self.retries + 1)
        return _at(back, self.step, now)

    def compensated_by_hand(self, now: datetime, message: str) -> "Saga":
        """Return a saga on its way back, its present step included, since that may have taken effect; raises."""
        before_pivot = _ORDER.index(self.step) < _ORDER.index(_PIVOT)
        if self.state not in (SagaState.RUNNING, SagaState.PARKED) or not before_pivot:
            raise SagaStateConflict(saga_id=self.id, state=self.state.name, wanted=SagaState.COMPENSATING.name)
        given_up = replace(self, reason="COMPENSATED_BY_OPERATOR", message=message, parked_from=None)
        return _undo_from(given_up, _ORDER.index(self.step), now)

    def reopened(self, step: Step, now: datetime) -> "Saga":
        """Return a compensated saga that undoes one step again, which took effect after all."""
        return _at(replace(self, state=SagaState.COMPENSATING), step, now)


def _forward(saga: Saga, now: datetime) -> Saga:
    position = _ORDER.index(saga.step)
    if saga.cancel_reason and position < _ORDER.index(_PIVOT):
        return _undo_from(replace(saga, reason=saga.cancel_reason), position, now)
    if position + 1 == len(_ORDER):
        return replace(saga, state=SagaState.DONE, version=saga.version + 1)
    step = _ORDER[position + 1]
    return _at(saga, step, now + NEVER if step is Step.AWAIT_SHIPMENT else now)


def _back(saga: Saga, now: datetime) -> Saga:
    return _undo_from(saga, _ORDER.index(saga.step) - 1, now)


def _undo_from(saga: Saga, position: int, now: datetime) -> Saga:
    while position >= 0 and _ORDER[position] not in _UNDOABLE:
        position -= 1
    if position < 0:
        return replace(saga, state=SagaState.COMPENSATED, version=saga.version + 1)
    return _at(replace(saga, state=SagaState.COMPENSATING), _ORDER[position], now)


def _at(saga: Saga, step: Step, when: datetime) -> Saga:
    return replace(saga, step=step, attempts=0, next_attempt_time=when, version=saga.version + 1)


def cancel(order: Order, saga: Saga, now: datetime, reason: str, message: str) -> Saga:
    """Return the saga of an order that is to be cancelled; raises OrderNotCancellable when it is too late."""
    if order.state not in (State.PENDING, State.CONFIRMED):
        raise OrderNotCancellable(order_id=order.id, state=order.state.name)
    return saga.cancelled(now, reason, message, order.shipment_id)


def after_step(order: Order, saga: Saga, step: Step, outcome: Outcome, now: datetime) -> Order:
    """Return what a step's outcome, which brought the saga to where it is, makes of the order."""
    if saga.state is SagaState.COMPENSATED:
        ending = State.CANCELLED if saga.cancel_reason else State.REJECTED
        if order.state is State.CONFIRMED:
            ending = State.CANCELLED
        order = order.paid(Payment.UNPAID, now).fulfilled(Fulfillment.UNFULFILLED, now)
        return order.moved(ending, now, saga.reason, saga.message)
    if saga.state is SagaState.COMPENSATING or not isinstance(outcome, Done):
        return order
    match step:
        case Step.AUTHORIZE_PAYMENT:
            return order.paid(Payment.AUTHORIZED, now)
        case Step.CONFIRM_RESERVATION:
            return order.fulfilled(Fulfillment.ALLOCATED, now).moved(State.CONFIRMED, now)
        case Step.CAPTURE_PAYMENT:
            return order.paid(Payment.PAID, now).moved(State.SHIPPED, now)
        case _:
            return order
