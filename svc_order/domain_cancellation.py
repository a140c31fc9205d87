"""Cancelled lines: what is left of an order, and what remains to be done. Pure: no I/O, no clock, no proto."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum

from chassis.domain.transitions import Transitions
from shop.order.v1.order_errors import (
    CancellationStateConflict,
    CancelQuantityTooLarge,
    LinesNotCancellable,
    OrderWouldBeEmpty,
)
from svc_order.domain import Line, Order, OrderTotals, State
from svc_order.domain_pricing import included_tax
from svc_order.domain_returns import largest_remainder
from svc_order.domain_settlement import RefundDecision


class CancellationState(Enum):
    """The states of a cancellation of lines."""

    REQUESTED = "REQUESTED"
    COMPLETED = "COMPLETED"
    REFUND_REFUSED = "REFUND_REFUSED"


CANCELLATION_TRANSITIONS = Transitions.between(
    {
        CancellationState.REQUESTED: (CancellationState.COMPLETED, CancellationState.REFUND_REFUSED),
        CancellationState.REFUND_REFUSED: (CancellationState.REQUESTED, CancellationState.COMPLETED),
    }
)


class CancellationStep(Enum):
    """What remains to be done after the order has changed."""

    RELEASE = "release"
    REFUND = "refund"


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelledLine:
    """Cancelled units of one SKU."""

    sku: str
    name: str
    quantity: int
    unit_price: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LineCancellation:
    """The cancellation of units of one order."""

    id: str
    order_id: str
    lines: tuple[CancelledLine, ...]
    #: Minor units by which the order's total became smaller.
    amount: int
    message: str
    next_attempt_time: datetime
    create_time: datetime
    update_time: datetime
    state: CancellationState = CancellationState.REQUESTED
    step: CancellationStep = CancellationStep.RELEASE
    #: The minor units whose refund was requested: all, or none where less is captured.
    refund: int = 0
    #: Why its step has not succeeded yet.
    problem: str = ""
    attempts: int = 0
    #: Decisions to retry the refund: each makes it a new request.
    retries: int = 0
    #: Grows with each change, also with each attempt.
    version: int = 1

    def claimed(self, now: datetime, lease: timedelta) -> "LineCancellation":
        """Return the cancellation with an attempt at its step begun."""
        return replace(self, attempts=self.attempts + 1, next_attempt_time=now + lease, version=self.version + 1)

    def postponed(self, now: datetime, pause: timedelta, problem: str) -> "LineCancellation":
        """Return the cancellation with its step due again after a pause."""
        return replace(self, next_attempt_time=now + pause, problem=problem, version=self.version + 1)

    def released(self, now: datetime) -> "LineCancellation":
        """Return the cancellation about to be refunded."""
        after = replace(self, step=CancellationStep.REFUND, attempts=0, problem="", next_attempt_time=now)
        return replace(after, version=self.version + 1)

    def transition_to(self, to: CancellationState, now: datetime) -> "LineCancellation":
        """Return the cancellation in another state; raises CancellationStateConflict."""
        if not CANCELLATION_TRANSITIONS.allows(self.state, to):
            raise CancellationStateConflict(cancellation_id=self.id, state=self.state.name, wanted=to.name)
        return replace(self, state=to, problem="", update_time=now, version=self.version + 1)

    def completed(self, now: datetime, refund: int) -> "LineCancellation":
        """Return the cancellation that has nothing left to do."""
        return replace(self.transition_to(CancellationState.COMPLETED, now), refund=refund)

    def refund_refused(self, problem: str, now: datetime) -> "LineCancellation":
        """Return the cancellation that waits for an operator: its refund was rejected."""
        return replace(self.transition_to(CancellationState.REFUND_REFUSED, now), problem=problem)

    def refund_decided(self, decision: RefundDecision, now: datetime) -> "LineCancellation":
        """Return the cancellation about to be refunded once more, or refunded outside.

        Raises CancellationStateConflict.
        """
        if self.state is not CancellationState.REFUND_REFUSED:
            raise CancellationStateConflict(cancellation_id=self.id, state=self.state.name, wanted="SETTLED")
        if decision is RefundDecision.REFUNDED_OUTSIDE:
            return self.transition_to(CancellationState.COMPLETED, now)
        again = self.transition_to(CancellationState.REQUESTED, now)
        return replace(again, retries=self.retries + 1, attempts=0, next_attempt_time=now)


def cancel_lines(order: Order, units: Mapping[str, int], now: datetime, *, is_awaiting_shipment: bool) -> Order:
    """Return the order without some units; `is_awaiting_shipment` is its saga's: whether only ShipOrder resumes it.

    Raises LinesNotCancellable, CancelQuantityTooLarge or OrderWouldBeEmpty.
    """
    if not is_awaiting_shipment:
        state = "being shipped, paid or cancelled" if order.state is State.CONFIRMED else order.state.name
        raise LinesNotCancellable(order_id=order.id, state=state)
    bought = {line.sku: line.quantity for line in order.totals.lines}
    for sku, quantity in units.items():
        if quantity > bought.get(sku, 0):
            raise CancelQuantityTooLarge(sku=sku, quantity=quantity, limit=bought.get(sku, 0))
    totals = without_units(order.totals, units)
    if not totals.lines or not totals.total:
        raise OrderWouldBeEmpty(order_id=order.id)
    cancelled = (order.cancelled_amount or 0) + order.totals.total - totals.total
    return replace(order, totals=totals, cancelled_amount=cancelled, update_time=now)


def without_units(totals: OrderTotals, units: Mapping[str, int]) -> OrderTotals:
    """Return totals without the price of some units and their share of the shipping fee, as `refund_for` counts it."""
    fees = largest_remainder(totals.shipping_fee, [line.total for line in totals.lines])
    lines: list[Line] = []
    shipping_fee = 0
    for line, fee in zip(totals.lines, fees, strict=True):
        cancelled = units.get(line.sku, 0)
        shipping_fee += sum(largest_remainder(fee, [1] * line.quantity)[cancelled:])
        if cancelled < line.quantity:
            lines.append(_reduced(line, line.quantity - cancelled) if cancelled else line)
    tax_before = totals.tax_total - sum(line.tax for line in totals.lines)
    shipping_tax, _ = largest_remainder(tax_before, [shipping_fee, totals.shipping_fee - shipping_fee])
    tax_total = sum(line.tax for line in lines) + shipping_tax
    return replace(totals, lines=tuple(lines), shipping_fee=shipping_fee, tax_total=tax_total)


def cancelled_lines(totals: OrderTotals, units: Mapping[str, int]) -> Sequence[CancelledLine]:
    """Return the cancelled units as the order has them before, in the order of its lines."""
    return [
        CancelledLine(sku=line.sku, name=line.name, quantity=units[line.sku], unit_price=line.unit_price)
        for line in totals.lines
        if line.sku in units
    ]


def refund_due(order: Order, one: LineCancellation, captured: int) -> int:
    """Return the minor units to refund when the payment has captured so much of the order's amount.

    A payment that is captured when the parcel leaves takes the smaller total. A cancelled order is refunded as a whole.
    """
    is_cancelled = order.state in (State.CANCELLED, State.REJECTED)
    return 0 if is_cancelled or captured <= order.totals.total else one.amount


def _reduced(line: Line, quantity: int) -> Line:
    total = line.unit_price * quantity
    return replace(line, quantity=quantity, total=total, tax=included_tax(total, line.tax_rate_basis_points))
