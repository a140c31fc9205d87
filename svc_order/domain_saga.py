"""The saga that carries one order through the other services. Pure: no I/O, no clock, no proto.

A RUNNING saga executes its steps in order; a refused step turns it around, and COMPENSATING undoes what was done, in
reverse. A method that has nothing to change returns the same object.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from chassis.domain.backoff import backoff
from chassis.domain.transitions import Transitions
from shop.order.v1.order_errors import OrderNotCancellable, SagaStateConflict
from svc_order.domain import Fulfillment, Order, Payment, State


class Step(Enum):
    """The steps of a saga, in order."""

    RESERVE_STOCK = "reserve_stock"
    BOOK_SLOT = "book_slot"
    AUTHORIZE_PAYMENT = "authorize_payment"
    CONFIRM_RESERVATION = "confirm_reservation"
    #: Waits for ShipOrder.
    AWAIT_SHIPMENT = "await_shipment"
    CREATE_SHIPMENT = "create_shipment"
    #: Waits for the courier's events.
    AWAIT_PICKUP = "await_pickup"
    CAPTURE_PAYMENT = "capture_payment"
    FULFILL_RESERVATION = "fulfill_reservation"


_ORDER = tuple(Step)
#: The steps that are undone. Releasing the reservation undoes its confirmation too.
_UNDOABLE = frozenset({Step.RESERVE_STOCK, Step.BOOK_SLOT, Step.AUTHORIZE_PAYMENT})
_WAITING = frozenset({Step.AWAIT_SHIPMENT, Step.AWAIT_PICKUP})
#: From this step on the saga goes forward, or is parked, and compensates only when an operator says so.
_PIVOT = _ORDER.index(Step.CREATE_SHIPMENT)
#: From this step on the parcel has left, and nothing compensates.
_DEPARTED = _ORDER.index(Step.CAPTURE_PAYMENT)


class SagaState(Enum):
    """The states of a saga."""

    RUNNING = "RUNNING"
    DONE = "DONE"
    COMPENSATING = "COMPENSATING"
    COMPENSATED = "COMPENSATED"
    PARKED = "PARKED"


SAGA_TRANSITIONS = Transitions.between(
    {
        SagaState.RUNNING: (SagaState.DONE, SagaState.COMPENSATING, SagaState.COMPENSATED, SagaState.PARKED),
        SagaState.COMPENSATING: (SagaState.COMPENSATED, SagaState.PARKED),
        SagaState.PARKED: (SagaState.RUNNING, SagaState.COMPENSATING),
        SagaState.COMPENSATED: (SagaState.COMPENSATING,),
    }
)


@dataclass(frozen=True, slots=True)
class Done:
    """The step took effect, now or before."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The step did not take effect, and never will."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The step may have taken effect: it is repeated with the same key until its outcome is known."""

    reason: str


@dataclass(frozen=True, slots=True)
class Pending:
    """The participant has not finished the step yet: it is called again."""


StepResult = Done | Refused | Unknown | Pending

_MAX_ATTEMPTS = 12
_FIRST_PAUSE = timedelta(milliseconds=400)
_LONGEST_PAUSE = timedelta(seconds=15)
_PENDING_PAUSE = timedelta(seconds=1)
#: The pause of a step that only an event ends.
NEVER = timedelta(days=36500)


def saga_id(order_id: str) -> str:
    """Return the id of an order's saga."""
    return f"saga-{order_id.removeprefix('order-')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Saga:
    """The progress of one order through the other services."""

    id: str
    order_id: str
    next_attempt_time: datetime
    state: SagaState = SagaState.RUNNING
    step: Step = Step.RESERVE_STOCK
    attempts: int = 0
    #: The number of RetrySaga calls that took effect: each makes the next attempt a new request to the participants.
    retries: int = 0
    #: Why it compensates; of one that was going forward, why it is parked.
    reason: str = ""
    #: Set by CancelOrder; takes effect when the current step has a definite outcome.
    cancel_reason: str = ""
    #: The words of the user who cancelled the order, or of the operator who compensated the saga.
    message: str = ""
    #: The member of staff who called ShipOrder.
    shipment_actor: str = ""
    #: The state that RetrySaga returns it to; None unless it is PARKED.
    parked_from: SagaState | None = None
    #: Grows with each attempt and each result: a process that has an older one lost its lease, and writes nothing.
    version: int = 1
    traceparent: str = ""

    @property
    def is_active(self) -> bool:
        """Return whether it has a step to execute."""
        return self.state in (SagaState.RUNNING, SagaState.COMPENSATING)

    @property
    def is_awaiting_shipment(self) -> bool:
        """Return whether only ShipOrder resumes it."""
        return self.state is SagaState.RUNNING and self.step is Step.AWAIT_SHIPMENT

    @property
    def is_shippable(self) -> bool:
        """Return whether the order may be shipped, or is."""
        return self.is_awaiting_shipment or self.is_past_pivot

    @property
    def is_past_pivot(self) -> bool:
        """Return whether it no longer compensates by itself."""
        return _ORDER.index(self.step) >= _PIVOT

    @property
    def has_departed(self) -> bool:
        """Return whether the parcel has left."""
        return _ORDER.index(self.step) >= _DEPARTED

    def claimed(self, now: datetime, lease: timedelta) -> "Saga":
        """Return the saga with an attempt at its current step begun; after `lease` another process may resume it."""
        return replace(self, attempts=self.attempts + 1, next_attempt_time=now + lease, version=self.version + 1)

    def advanced(self, result: StepResult, now: datetime, jitter: float) -> "Saga":  # noqa: PLR0911  a table
        """Return the saga after its current step returned `result`; `jitter`, from 0 to 1, spreads repeats."""
        match result:
            case Done():
                return _undo_previous(self, now) if self.state is SagaState.COMPENSATING else _forward(self, now)
            case Refused(reason):
                if self.state is SagaState.COMPENSATING or self.is_past_pivot:
                    return self.parked(reason)
                return _undo_previous(replace(self, reason=self.cancel_reason or reason), now)
            case Unknown(reason):
                if self.attempts >= _MAX_ATTEMPTS:
                    return self.parked(reason)
                pause = backoff(self.attempts, _FIRST_PAUSE, _LONGEST_PAUSE, jitter)
                return replace(self, next_attempt_time=now + pause, version=self.version + 1)
            case Pending():
                if self.cancel_reason and self.state is SagaState.RUNNING:
                    return _forward(self, now)
                attempts = max(0, self.attempts - 1)  # waiting for a participant is no failure
                next_attempt_time = now + _PENDING_PAUSE
                return replace(self, attempts=attempts, next_attempt_time=next_attempt_time, version=self.version + 1)

    def cancelled(self, now: datetime, reason: str, message: str, shipment_id: str) -> "Saga":
        """Return the saga compensating, or with the cancellation recorded for the end of the step in progress.

        Raises OrderNotCancellable once the order has a shipment.
        """
        if SagaState.COMPENSATING in (self.state, self.parked_from) or self.state is SagaState.COMPENSATED:
            return self
        if self.state is SagaState.DONE or shipment_id or self.is_past_pivot:
            raise OrderNotCancellable(order_id=self.order_id, state="being shipped")
        if self.cancel_reason:
            return self
        recorded = replace(self, cancel_reason=reason, message=message)
        if self.is_awaiting_shipment:
            return _undo_previous(replace(recorded, reason=reason), now)
        return (
            recorded  # at the same version: the process that executes the step finds the cancellation when it settles
        )

    def with_shipment_requested(self, actor: str, now: datetime) -> "Saga":
        """Return the saga resumed by ShipOrder; the same saga when it does not wait for that."""
        if not self.is_awaiting_shipment:
            return self
        return _at(replace(self, shipment_actor=actor), Step.CREATE_SHIPMENT, now)

    def departed(self, now: datetime) -> "Saga":
        """Return the saga resumed by the parcel's departure; the same saga when it does not wait for that.

        The parcel may depart before CREATE_SHIPMENT has a definite outcome: its departure is one.
        """
        goes_forward = SagaState.RUNNING in (self.state, self.parked_from)
        if not goes_forward or not _ORDER.index(Step.AWAIT_SHIPMENT) <= _ORDER.index(self.step) < _DEPARTED:
            return self
        return _at(_in_state(self, SagaState.RUNNING, parked_from=None, reason=""), Step.CAPTURE_PAYMENT, now)

    def with_shipment_failed(self, now: datetime) -> "Saga":
        """Return the saga about to cancel its shipment, which failed before it departed; itself when it has none."""
        return self._before_departure(Step.CREATE_SHIPMENT, now)

    def without_shipment(self, now: datetime) -> "Saga":
        """Return the saga awaiting another ShipOrder; itself unless it had a shipment that has not departed."""
        return self._before_departure(Step.AWAIT_SHIPMENT, now + NEVER)

    def _before_departure(self, step: Step, when: datetime) -> "Saga":
        goes_forward = SagaState.RUNNING in (self.state, self.parked_from)
        if not goes_forward or self.step not in (Step.CREATE_SHIPMENT, Step.AWAIT_PICKUP):
            return self
        return _at(_in_state(self, SagaState.RUNNING, parked_from=None, reason=""), step, when)

    def parked(self, reason: str) -> "Saga":
        """Return the saga waiting for an operator; an error in compensating does not replace the first reason."""
        kept = self.reason if self.state is SagaState.COMPENSATING else reason
        return _in_state(self, SagaState.PARKED, parked_from=self.state, reason=kept, version=self.version + 1)

    def retried(self, now: datetime) -> "Saga":
        """Return a parked saga resumed; raises SagaStateConflict."""
        if self.parked_from is None:
            raise SagaStateConflict(saga_id=self.id, state=self.state.name, wanted=SagaState.RUNNING.name)
        reason = self.reason if self.parked_from is SagaState.COMPENSATING else ""
        resumed = _in_state(self, self.parked_from, parked_from=None, reason=reason, retries=self.retries + 1)
        return _at(resumed, self.step, now)

    def compensated_by_operator(self, now: datetime, message: str) -> "Saga":
        """Return the saga compensating, its current step included, which may have taken effect.

        Raises SagaStateConflict.
        """
        if self.state not in (SagaState.RUNNING, SagaState.PARKED) or _ORDER.index(self.step) >= _DEPARTED:
            raise SagaStateConflict(saga_id=self.id, state=self.state.name, wanted=SagaState.COMPENSATING.name)
        reasoned = replace(self, reason="COMPENSATED_BY_OPERATOR", message=message, parked_from=None)
        return _undo_from(reasoned, _ORDER.index(self.step), now)

    def reopened(self, step: Step, now: datetime) -> "Saga":
        """Return a compensated saga that undoes one step again, which took effect after all."""
        return _at(_in_state(self, SagaState.COMPENSATING), step, now)


def _forward(saga: Saga, now: datetime) -> Saga:
    position = _ORDER.index(saga.step)
    if saga.cancel_reason and position < _PIVOT:
        return _undo_from(replace(saga, reason=saga.cancel_reason), position, now)
    if position + 1 == len(_ORDER):
        return _in_state(saga, SagaState.DONE, version=saga.version + 1)
    step = _ORDER[position + 1]
    return _at(saga, step, now + NEVER if step in _WAITING else now)


def _undo_previous(saga: Saga, now: datetime) -> Saga:
    return _undo_from(saga, _ORDER.index(saga.step) - 1, now)


def _undo_from(saga: Saga, position: int, now: datetime) -> Saga:
    while position >= 0 and _ORDER[position] not in _UNDOABLE:
        position -= 1
    if position < 0:
        return _in_state(saga, SagaState.COMPENSATED, version=saga.version + 1)
    return _at(_in_state(saga, SagaState.COMPENSATING), _ORDER[position], now)


def _at(saga: Saga, step: Step, when: datetime) -> Saga:
    return replace(saga, step=step, attempts=0, next_attempt_time=when, version=saga.version + 1)


def _in_state(saga: Saga, to: SagaState, **changes: Any) -> Saga:
    """Return the saga in a state; raises ValueError for a transition that SAGA_TRANSITIONS forbids."""
    if saga.state is not to and not SAGA_TRANSITIONS.allows(saga.state, to):
        raise ValueError(f"a saga cannot go from {saga.state.name} to {to.name}")
    return replace(saga, state=to, **changes)


def cancel(order: Order, saga: Saga, now: datetime, reason: str, message: str) -> Saga:
    """Return the saga of an order that is to be cancelled; raises OrderNotCancellable when it is too late."""
    if order.state not in (State.PENDING, State.CONFIRMED):
        raise OrderNotCancellable(order_id=order.id, state=order.state.name)
    return saga.cancelled(now, reason, message, order.shipment_id)


def after_step(order: Order, saga: Saga, step: Step, result: StepResult, now: datetime) -> Order:
    """Return the order after `step` returned `result`, which brought the saga to where it is."""
    if saga.state is SagaState.COMPENSATED:
        cancelled = saga.cancel_reason or order.state is State.CONFIRMED
        order = order.with_payment(Payment.UNPAID, now).with_fulfillment(Fulfillment.UNFULFILLED, now)
        return order.transition_to(State.CANCELLED if cancelled else State.REJECTED, now, saga.reason, saga.message)
    if saga.state is SagaState.COMPENSATING or not isinstance(result, Done):
        return order
    match step:
        case Step.AUTHORIZE_PAYMENT:
            return order.with_payment(Payment.AUTHORIZED, now)
        case Step.CONFIRM_RESERVATION:
            return order.with_fulfillment(Fulfillment.ALLOCATED, now).transition_to(State.CONFIRMED, now)
        case Step.CAPTURE_PAYMENT:
            return order.with_payment(Payment.PAID, now).transition_to(State.SHIPPED, now)
        case _:
            return order
