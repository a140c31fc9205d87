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
from shop.order.v1.order_errors import OrderNotCancellable, OrderNotPayable, SagaStateConflict
from svc_order.domain_steps import SKIPPED, STEPS, UNDOABLE, Done, Pending, Refused, Step, StepResult, Unknown


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
        SagaState.COMPENSATING: (SagaState.COMPENSATED, SagaState.PARKED, SagaState.RUNNING),
        SagaState.PARKED: (SagaState.RUNNING, SagaState.COMPENSATING),
        SagaState.COMPENSATED: (SagaState.COMPENSATING,),
    }
)


_FIRST_PAUSE = timedelta(milliseconds=400)
_LONGEST_PAUSE = timedelta(seconds=60)
#: The pauses of a step that the participant has not finished. Its event wakes the saga sooner.
_FIRST_POLL = timedelta(seconds=1)
_LONGEST_POLL = timedelta(minutes=5)
#: How long after the end of a payment its participant may take to say so.
_PAYMENT_GRACE = timedelta(minutes=2)
#: The pause of a step that only an event ends.
NEVER = timedelta(days=36500)
#: Why a saga compensates that had no outcome by its deadline.
ORDER_EXPIRED = "ORDER_EXPIRED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """How long the saga of a confirmed order waits for others."""

    #: For ShipOrder; the order is cancelled then.
    shipment: timedelta = NEVER
    #: For the courier; the shipment is cancelled then.
    pickup: timedelta = NEVER


_FOR_EVER = Waits()


def saga_id(order_id: str) -> str:
    """Return the id of an order's saga."""
    return f"saga-{order_id.removeprefix('order-')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Saga:
    """The progress of one order through the other services."""

    id: str
    order_id: str
    next_attempt_time: datetime
    #: Until when the order must be confirmed: what has no outcome then is undone.
    deadline: datetime
    state: SagaState = SagaState.RUNNING
    step: Step = Step.RESERVE_STOCK
    attempts: int = 0
    #: Whether a process has begun an attempt whose result it has not written yet.
    executing: bool = False
    #: The number of RetrySaga calls that took effect: each makes the next attempt a new request to the participants.
    retries: int = 0
    #: Whether the order waits for RetryPayment after a decline.
    keep_on_decline: bool = False
    #: Why it compensates; of one that was going forward, why it is parked or waits for another payment method.
    reason: str = ""
    #: Set by CancelOrder; takes effect when the attempt in progress has a result.
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
        compensating = SagaState.COMPENSATING in (self.state, self.parked_from)
        return self.is_awaiting_shipment or (self.step.is_past_pivot and not compensating)

    @property
    def has_departed(self) -> bool:
        """Return whether the parcel has left."""
        return self.step.is_after_departure

    def claimed(self, now: datetime, lease: timedelta) -> "Saga":
        """Return the saga with an attempt at its current step begun; after `lease` another process may resume it."""
        begun = replace(self, attempts=self.attempts + 1, executing=True, next_attempt_time=now + lease)
        return replace(begun, version=self.version + 1)

    def advanced(self, result: StepResult, now: datetime, jitter: float, waits: Waits = _FOR_EVER) -> "Saga":
        """Return the saga after its current step returned `result`; `jitter`, from 0 to 1, spreads repeats."""
        saga = replace(self, executing=False)
        match result:
            case Done():
                if self.state is SagaState.COMPENSATING:
                    return _undo_previous(saga, now)
                return _forward(saga, now, waits)
            case Refused(reason):
                return _refused(saga, reason, now)
            case Unknown(_, retry_delay):
                pause = backoff(self.attempts, _FIRST_PAUSE, _LONGEST_PAUSE, jitter)
                return _repeat(saga, now, max(pause, min(retry_delay, _LONGEST_PAUSE)))
            case Pending(until):
                return _await(saga, now, until, backoff(self.attempts, _FIRST_POLL, _LONGEST_POLL, jitter))

    def cancelled(self, now: datetime, reason: str, message: str, shipment_id: str) -> "Saga":
        """Return the saga compensating, or with the cancellation recorded for the end of the attempt in progress.

        What its current step may have done is undone, too. Raises OrderNotCancellable once the order has a shipment.
        """
        if SagaState.COMPENSATING in (self.state, self.parked_from) or self.state is SagaState.COMPENSATED:
            return self
        if self.state is SagaState.DONE or shipment_id or self.step.is_past_pivot:
            raise OrderNotCancellable(order_id=self.order_id, state="being shipped")
        if self.cancel_reason:
            return self
        recorded = replace(self, cancel_reason=reason, message=message)
        if self.executing:
            return recorded  # at the same version: the process that executes the step finds it when it settles
        return _undo_from(replace(recorded, reason=reason, parked_from=None), self.step.position, now)

    def with_shipment_requested(self, actor: str, now: datetime) -> "Saga":
        """Return the saga resumed by ShipOrder; the same saga when it does not wait for that."""
        if not self.is_awaiting_shipment:
            return self
        return _at(replace(self, shipment_actor=actor), Step.CREATE_SHIPMENT, now)

    def departed(self, now: datetime) -> "Saga":
        """Return the saga resumed by the parcel's departure; the same saga when it does not wait for that.

        The parcel may depart before CREATE_SHIPMENT, or its compensation, has a definite outcome: its departure is one.
        """
        goes_forward = SagaState.RUNNING in (self.state, self.parked_from)
        waits = Step.AWAIT_SHIPMENT.position <= self.step.position and not self.step.is_after_departure
        cancels_shipment = self.state is not SagaState.COMPENSATED and self.step is Step.CREATE_SHIPMENT
        if not ((goes_forward and waits) or cancels_shipment):
            return self
        return _at(_in_state(self, SagaState.RUNNING, parked_from=None, reason=""), Step.CAPTURE_PAYMENT, now)

    def with_shipment_failed(self, now: datetime) -> "Saga":
        """Return the saga about to cancel its shipment, which failed before it departed; itself when it has none."""
        return self._before_departure(Step.CREATE_SHIPMENT, now)

    def without_shipment(self, now: datetime, waits: Waits) -> "Saga":
        """Return the saga awaiting another ShipOrder; itself unless it had a shipment that has not departed."""
        return self._before_departure(Step.AWAIT_SHIPMENT, now + waits.shipment)

    def _before_departure(self, step: Step, when: datetime) -> "Saga":
        goes_forward = SagaState.RUNNING in (self.state, self.parked_from)
        if not goes_forward or self.step not in (Step.CREATE_SHIPMENT, Step.AWAIT_PICKUP):
            return self
        return _at(_in_state(self, SagaState.RUNNING, parked_from=None, reason=""), step, when)

    def woken(self, now: datetime) -> "Saga":
        """Return the saga due, as its payment has changed; the same saga when it does not wait for that."""
        waits = self.step is Step.AWAIT_PAYMENT or (self.step is Step.CAPTURE_PAYMENT and not self.executing)
        return _at(self, self.step, now) if waits and self.state is SagaState.RUNNING else self

    def paying_again(self, now: datetime) -> "Saga":
        """Return the saga about to authorize another payment; raises OrderNotPayable when it waits for none."""
        if self.state is not SagaState.RUNNING or self.step is not Step.AWAIT_PAYMENT_METHOD or now >= self.deadline:
            raise OrderNotPayable(order_id=self.order_id)
        return _at(replace(self, reason=""), Step.AUTHORIZE_PAYMENT, now)

    def reauthorizing(self, now: datetime, within: timedelta) -> "Saga":
        """Return the saga of a confirmed order about to authorize another payment, as the first has expired."""
        return _at(replace(self, deadline=now + within), Step.AUTHORIZE_PAYMENT, now)

    def parked(self, reason: str) -> "Saga":
        """Return the saga waiting for an operator; an error in compensating does not replace the first reason."""
        kept = self.reason if self.state is SagaState.COMPENSATING else reason
        changes = {"parked_from": self.state, "reason": kept, "executing": False, "version": self.version + 1}
        return _in_state(self, SagaState.PARKED, **changes)

    def retried(self, now: datetime) -> "Saga":
        """Return a parked saga resumed; raises SagaStateConflict."""
        if self.parked_from is None:
            raise SagaStateConflict(saga_id=self.id, state=self.state.name, wanted=SagaState.RUNNING.name)
        reason = self.reason if self.parked_from is SagaState.COMPENSATING else ""
        resumed = _in_state(self, self.parked_from, parked_from=None, reason=reason, retries=self.retries + 1)
        return _at(resumed, self.step, now)

    def compensated_by_operator(self, now: datetime, message: str) -> "Saga":
        """Return the saga compensating, its current step included, which may have taken effect.

        A shipment is cancelled first. Raises SagaStateConflict, also once the parcel has left.
        """
        if self.state not in (SagaState.RUNNING, SagaState.PARKED) or self.step.is_after_departure:
            raise SagaStateConflict(saga_id=self.id, state=self.state.name, wanted=SagaState.COMPENSATING.name)
        reasoned = replace(self, reason="COMPENSATED_BY_OPERATOR", message=message, parked_from=None)
        return _undo_from(reasoned, self.step.position, now)

    def unpaid(self, now: datetime, reason: str) -> "Saga":
        """Return the saga compensating as the payment has ended, its shipment included, which has not departed."""
        return _undo_from(replace(self, reason=reason), self.step.position, now)

    def reopened(self, step: Step, now: datetime) -> "Saga":
        """Return a compensated saga that undoes one step again, which took effect after all."""
        return _at(_in_state(self, SagaState.COMPENSATING), step, now)


def _forward(saga: Saga, now: datetime, waits: Waits) -> Saga:
    position = saga.step.position
    if saga.cancel_reason and not saga.step.is_past_pivot:
        return _undo_from(replace(saga, reason=saga.cancel_reason), position, now)
    if position + 1 == len(STEPS):
        return _in_state(saga, SagaState.DONE, version=saga.version + 1)
    step = next(step for step in STEPS[position + 1 :] if step not in SKIPPED)
    pauses = {Step.AWAIT_SHIPMENT: waits.shipment, Step.AWAIT_PICKUP: waits.pickup}
    return _at(saga, step, now + pauses.get(step, timedelta()))


def _refused(saga: Saga, reason: str, now: datetime) -> Saga:
    if saga.state is SagaState.COMPENSATING or saga.step.is_past_pivot:
        return saga.parked(reason)
    declined = saga.step in (Step.AUTHORIZE_PAYMENT, Step.AWAIT_PAYMENT)
    if declined and saga.keep_on_decline and not saga.cancel_reason and now < saga.deadline:
        return _at(replace(saga, reason=reason), Step.AWAIT_PAYMENT_METHOD, saga.deadline)
    return _undo_previous(replace(saga, reason=saga.cancel_reason or reason), now)


def _repeat(saga: Saga, now: datetime, pause: timedelta) -> Saga:
    """Return the saga with its step due again after a pause, or compensating what that step may have done.

    Past the pivot, and in compensating, a step is repeated for as long as its participant does not answer.
    """
    when = now + pause
    if saga.state is SagaState.RUNNING and not saga.step.is_past_pivot:
        if saga.cancel_reason or now >= saga.deadline:
            return _undo_from(replace(saga, reason=saga.cancel_reason or ORDER_EXPIRED), saga.step.position, now)
        when = min(when, saga.deadline)
    return replace(saga, next_attempt_time=when, version=saga.version + 1)


def _await(saga: Saga, now: datetime, until: datetime | None, pause: timedelta) -> Saga:
    """Return the saga waiting for its participant, at most until a time that it named."""
    if saga.state is not SagaState.RUNNING or saga.step.is_past_pivot:
        return _repeat(saga, now, pause)
    if until is not None:
        saga = replace(saga, deadline=max(saga.deadline, until + _PAYMENT_GRACE))
    waiting = _repeat(saga, now, pause)
    if waiting.state is not SagaState.RUNNING or saga.step is not Step.AUTHORIZE_PAYMENT:
        return waiting
    return _at(saga, Step.AWAIT_PAYMENT, waiting.next_attempt_time)


def _undo_previous(saga: Saga, now: datetime) -> Saga:
    return _undo_from(saga, saga.step.position - 1, now)


def _undo_from(saga: Saga, position: int, now: datetime) -> Saga:
    while position >= 0 and STEPS[position] not in UNDOABLE:
        position -= 1
    if position < 0:
        return _in_state(saga, SagaState.COMPENSATED, executing=False, version=saga.version + 1)
    return _at(_in_state(saga, SagaState.COMPENSATING), STEPS[position], now)


def _at(saga: Saga, step: Step, when: datetime) -> Saga:
    return replace(saga, step=step, attempts=0, executing=False, next_attempt_time=when, version=saga.version + 1)


def _in_state(saga: Saga, to: SagaState, **changes: Any) -> Saga:
    """Return the saga in a state; raises ValueError for a transition that SAGA_TRANSITIONS forbids."""
    if saga.state is not to and not SAGA_TRANSITIONS.allows(saga.state, to):
        raise ValueError(f"a saga cannot go from {saga.state.name} to {to.name}")
    return replace(saga, state=to, **changes)
