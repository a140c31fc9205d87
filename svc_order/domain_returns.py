"""Returns: their states, what can come back, and what is refunded for it. Pure: no I/O, no clock, no proto."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum

from chassis.domain.transitions import Transitions
from shop.order.v1.order_errors import OrderNotReturnable, ReturnQuantityTooLarge, ReturnStateConflict
from svc_order.domain import Order, OrderTotals, State
from svc_order.domain_settlement import RefundDecision


class ReturnState(Enum):
    """The states of a return."""

    REQUESTED = "REQUESTED"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"
    RECEIVED = "RECEIVED"
    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"
    REFUND_REFUSED = "REFUND_REFUSED"


RETURN_TRANSITIONS = Transitions.between(
    {
        ReturnState.REQUESTED: (ReturnState.APPROVED, ReturnState.REJECTED, ReturnState.CANCELLED),
        ReturnState.APPROVED: (ReturnState.RECEIVED, ReturnState.CANCELLED),
        # APPROVED again when the units cannot go to the location that was named.
        ReturnState.RECEIVED: (ReturnState.COMPLETED, ReturnState.APPROVED, ReturnState.REFUND_REFUSED),
        ReturnState.REFUND_REFUSED: (ReturnState.RECEIVED, ReturnState.COMPLETED),
    }
)

#: The reason of the return of a parcel that could not be delivered.
PARCEL_RETURNED = "PARCEL_RETURNED"


class ReturnStep(Enum):
    """What remains to be done for a return that was received."""

    RESTOCK = "restock"
    REFUND = "refund"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnLine:
    """The units of one SKU that come back."""

    sku: str
    quantity: int
    restocked: int = 0
    written_off: int = 0
    location_id: str = ""

    @property
    def received(self) -> int:
        """Return how many units came back."""
        return self.restocked + self.written_off


@dataclass(frozen=True, slots=True, kw_only=True)
class Return:
    """The return of units of one order."""

    id: str
    order_id: str
    user_id: str
    lines: tuple[ReturnLine, ...]
    reason: str
    next_attempt_time: datetime
    create_time: datetime
    update_time: datetime
    message: str = ""
    state: ReturnState = ReturnState.REQUESTED
    step: ReturnStep = ReturnStep.RESTOCK
    #: Minor units of the order's currency.
    refund: int = 0
    #: Why its step has not succeeded yet.
    problem: str = ""
    attempts: int = 0
    #: ReceiveReturn calls that took effect: each makes the restock a new request.
    receipts: int = 0
    #: Decisions to retry the refund: each makes it a new request.
    retries: int = 0
    #: Whether an operator made the refund outside.
    refunded_outside: bool = False
    #: Grows with each change, also with each attempt.
    version: int = 1
    #: The states, oldest first, each with its message and time.
    history: tuple[tuple[ReturnState, str, datetime], ...] = field(default=())

    @property
    def is_parcel(self) -> bool:
        """Return whether it is a parcel that could not be delivered."""
        return self.reason == PARCEL_RETURNED

    def transition_to(self, to: ReturnState, now: datetime) -> "Return":
        """Return the return in another state; raises ReturnStateConflict."""
        keeps_goods = to is ReturnState.CANCELLED and self.is_parcel
        if keeps_goods or not RETURN_TRANSITIONS.allows(self.state, to):
            raise ReturnStateConflict(return_id=self.id, state=self.state.name, wanted=to.name)
        return replace(self, state=to, update_time=now, version=self.version + 1)

    def claimed(self, now: datetime, lease: timedelta) -> "Return":
        """Return the return with an attempt at its step begun."""
        return replace(self, attempts=self.attempts + 1, next_attempt_time=now + lease, version=self.version + 1)

    def postponed(self, now: datetime, pause: timedelta, problem: str) -> "Return":
        """Return the return with its step due again after a pause."""
        return replace(self, next_attempt_time=now + pause, problem=problem, version=self.version + 1)

    def restocked(self, now: datetime) -> "Return":
        """Return the return about to be refunded."""
        version = self.version + 1
        return replace(self, step=ReturnStep.REFUND, attempts=0, problem="", next_attempt_time=now, version=version)

    def not_restocked(self, problem: str, now: datetime) -> "Return":
        """Return the return that has to be received again: the stock refused its units, and took none."""
        lines = tuple(ReturnLine(sku=line.sku, quantity=line.quantity) for line in self.lines)
        return replace(self.transition_to(ReturnState.APPROVED, now), lines=lines, refund=0, problem=problem)

    def refund_refused(self, problem: str, now: datetime) -> "Return":
        """Return the return that waits for an operator: its refund was rejected."""
        return replace(self.transition_to(ReturnState.REFUND_REFUSED, now), problem=problem)

    def refund_decided(self, decision: RefundDecision, now: datetime) -> "Return":
        """Return the return about to be refunded once more, or refunded outside; raises ReturnStateConflict."""
        if self.state is not ReturnState.REFUND_REFUSED:
            raise ReturnStateConflict(return_id=self.id, state=self.state.name, wanted="SETTLED")
        if decision is RefundDecision.REFUNDED_OUTSIDE:
            return replace(self.transition_to(ReturnState.COMPLETED, now), refunded_outside=True, problem="")
        again = replace(self.transition_to(ReturnState.RECEIVED, now), retries=self.retries + 1)
        return replace(again, attempts=0, problem="", next_attempt_time=now)

    def received(
        self, order: Order, returned: Mapping[str, int], lines: Mapping[str, ReturnLine], now: datetime
    ) -> "Return":
        """Return the return with the goods back; `returned` counts the units of the order's earlier returns.

        Raises ReturnStateConflict or ReturnQuantityTooLarge.
        """
        after = self.transition_to(ReturnState.RECEIVED, now)
        limits = {line.sku: line.quantity for line in self.lines}
        for sku, line in lines.items():
            if line.received > limits.get(sku, 0):
                raise ReturnQuantityTooLarge(sku=sku, quantity=line.received, limit=limits.get(sku, 0))
        received = tuple(replace(lines.get(line.sku, line), quantity=line.quantity) for line in self.lines)
        # The customer of a lost delivery has nothing, whatever is left of the parcel.
        counts = {line.sku: line.quantity if self.is_parcel else line.received for line in received}
        refund = refund_for(order.totals, returned, counts)
        return replace(
            after,
            lines=received,
            refund=refund,
            step=ReturnStep.RESTOCK,
            attempts=0,
            problem="",
            receipts=self.receipts + 1,
            next_attempt_time=now,
        )


def units_of(returns: Sequence[Return]) -> Counter[str]:
    """Return how many units of each SKU have come back by completed returns."""
    units: Counter[str] = Counter()
    for one in returns:
        if one.state is ReturnState.COMPLETED:
            units.update({line.sku: line.received for line in one.lines})
    return units


def check_returnable(order: Order, lines: Sequence[ReturnLine], returned: Mapping[str, int], *, is_open: bool) -> None:
    """Raise OrderNotReturnable, or ReturnQuantityTooLarge for units that it does not have.

    `is_open` says whether the return window is; `returned` counts the units of earlier returns.
    """
    if order.state is not State.DELIVERED:
        raise OrderNotReturnable(order_id=order.id, state=order.state.name)
    if not is_open:
        raise OrderNotReturnable(order_id=order.id, state="past its return window")
    bought = {line.sku: line.quantity for line in order.totals.lines}
    wanted: Counter[str] = Counter()
    for line in lines:
        wanted[line.sku] += line.quantity
        limit = bought.get(line.sku, 0) - returned.get(line.sku, 0)
        if wanted[line.sku] > limit:
            raise ReturnQuantityTooLarge(sku=line.sku, quantity=wanted[line.sku], limit=limit)


def whole_parcel(order: Order, now: datetime) -> Return:
    """Return the return of a parcel that came back: it is approved, as the shop has it."""
    return Return(
        id=f"return-{order.id.removeprefix('order-')}",
        order_id=order.id,
        user_id=order.user_id,
        lines=tuple(ReturnLine(sku=line.sku, quantity=line.quantity) for line in order.totals.lines),
        reason=PARCEL_RETURNED,
        state=ReturnState.APPROVED,
        next_attempt_time=now,
        create_time=now,
        update_time=now,
    )


def after_return(order: Order, one: Return, returned: Mapping[str, int], now: datetime) -> Order:
    """Return the order after one of its returns has ended; `returned` counts the units of all completed returns."""
    everything = all(returned.get(line.sku, 0) >= line.quantity for line in order.totals.lines)
    if one.state is ReturnState.COMPLETED and (everything or one.is_parcel):
        return order.transition_to(State.RETURNED, now)
    return order.transition_to(State.DELIVERED, now)


def refund_for(totals: OrderTotals, returned: Mapping[str, int], units: Mapping[str, int]) -> int:
    """Return the price of units and their share of the shipping fee, after `returned` units were refunded before.

    The shares of all units of an order add up to its fee, in whichever portions they come back.
    """
    refund = 0
    fees = largest_remainder(totals.shipping_fee, [line.total for line in totals.lines])
    for line, fee in zip(totals.lines, fees, strict=True):
        first, count = returned.get(line.sku, 0), units.get(line.sku, 0)
        shares = largest_remainder(fee, [1] * line.quantity)
        refund += line.unit_price * count + sum(shares[first : first + count])
    return refund


def largest_remainder(total: int, weights: Sequence[int]) -> list[int]:
    """Split a total by weights into whole shares that add up to it; of equal remainders the first is rounded up."""
    whole = sum(weights)
    if not whole:
        weights, whole = [1] * len(weights), len(weights)
    shares = [total * weight // whole for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda number: -(total * weights[number] % whole))
    for number in by_remainder[: total - sum(shares)]:
        shares[number] += 1
    return shares
