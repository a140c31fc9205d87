"""Orders: their states, and how far they are paid and delivered. Pure: no I/O, no clock, no proto.

A change that has nothing to do returns the same object: `after is before` means that there is nothing to save.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

from chassis.domain.transitions import Transitions
from shop.order.v1.order_errors import OrderNotShippable


class State(Enum):
    """The states of an order."""

    PENDING = "PENDING"
    CONFIRMED = "CONFIRMED"
    SHIPPED = "SHIPPED"
    DELIVERED = "DELIVERED"
    COMPLETED = "COMPLETED"
    REJECTED = "REJECTED"
    CANCELLED = "CANCELLED"
    RETURN_REQUESTED = "RETURN_REQUESTED"
    RETURNED = "RETURNED"


TRANSITIONS = Transitions.between(
    {
        State.PENDING: (State.CONFIRMED, State.REJECTED, State.CANCELLED),
        State.CONFIRMED: (State.SHIPPED, State.CANCELLED),
        State.SHIPPED: (State.DELIVERED, State.RETURN_REQUESTED),
        State.DELIVERED: (State.COMPLETED, State.RETURN_REQUESTED),
        State.RETURN_REQUESTED: (State.RETURNED, State.DELIVERED),
    }
)


class Payment(Enum):
    """How far an order is paid."""

    UNPAID = "UNPAID"
    PENDING = "PENDING"
    AUTHORIZED = "AUTHORIZED"
    PAID = "PAID"
    PARTIALLY_REFUNDED = "PARTIALLY_REFUNDED"
    REFUNDED = "REFUNDED"
    DISPUTED = "DISPUTED"
    CHARGED_BACK = "CHARGED_BACK"


_AFTER_CHARGE = (Payment.PARTIALLY_REFUNDED, Payment.REFUNDED, Payment.DISPUTED, Payment.CHARGED_BACK)
#: Any progress may be the first that is reported.
_PAYMENT_PROGRESS = {
    Payment.UNPAID: (Payment.PENDING, Payment.AUTHORIZED, Payment.PAID, *_AFTER_CHARGE),
    Payment.PENDING: (Payment.UNPAID, Payment.AUTHORIZED, Payment.PAID, *_AFTER_CHARGE),
    Payment.AUTHORIZED: (Payment.UNPAID, Payment.PAID, *_AFTER_CHARGE),
    Payment.PAID: _AFTER_CHARGE,
    Payment.PARTIALLY_REFUNDED: (Payment.REFUNDED, Payment.DISPUTED, Payment.CHARGED_BACK),
    Payment.DISPUTED: (Payment.PAID, Payment.PARTIALLY_REFUNDED, Payment.REFUNDED, Payment.CHARGED_BACK),
}


class Fulfillment(Enum):
    """How far an order is delivered, in order of progress."""

    UNFULFILLED = "UNFULFILLED"
    ALLOCATED = "ALLOCATED"
    SHIPPED = "SHIPPED"
    DELIVERED = "DELIVERED"
    RETURNED = "RETURNED"


_FULFILLMENT_RANKS = {state: rank for rank, state in enumerate(Fulfillment)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One SKU of an order, as the catalog described it when the order was placed."""

    sku: str
    product_id: str
    name: str
    quantity: int
    unit_price: int
    tax_rate_basis_points: int
    #: Included in `total`.
    tax: int
    total: int
    weight_grams: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderTotals:
    """What a cart costs, line by line and with its delivery."""

    currency: str
    lines: tuple[Line, ...]
    shipping_fee: int
    #: Included in `total`.
    tax_total: int

    @property
    def subtotal(self) -> int:
        """Return the sum of the lines."""
        return sum(line.total for line in self.lines)

    @property
    def total(self) -> int:
        """Return what is charged."""
        return self.subtotal + self.shipping_fee


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A purchase."""

    id: str
    user_id: str
    totals: OrderTotals
    #: google.protobuf bytes of a shop.type.v1.Address, opaque to the domain.
    shipping_address: bytes
    slot_id: str
    reservation_id: str
    payment_id: str
    create_time: datetime
    update_time: datetime
    state: State = State.PENDING
    state_reason: str = ""
    #: The words of the user who cancelled it.
    state_message: str = ""
    payment_state: Payment = Payment.UNPAID
    fulfillment_state: Fulfillment = Fulfillment.UNFULFILLED
    shipment_id: str = ""
    #: Earlier shipments, which were cancelled, or returned before they were picked up.
    ended_shipments: int = 0
    #: Until when the customer or the provider can still pay for it, while it waits for them.
    payment_due_time: datetime | None = None
    #: By how much cancelled lines have reduced the total since it was placed; None while it has all of its lines.
    cancelled_amount: int | None = None
    version: int = 1

    @property
    def payment_amount(self) -> int:
        """Return what its payment is authorized for: of a smaller total less is captured."""
        return self.totals.total + (self.cancelled_amount or 0)

    def transition_to(self, to: State, now: datetime, reason: str = "", message: str = "") -> "Order":
        """Return the order in another state; the same order when it is already there or TRANSITIONS forbids it."""
        if not TRANSITIONS.allows(self.state, to):
            return self
        return replace(self, state=to, state_reason=reason, state_message=message, update_time=now)

    def with_payment(self, to: Payment, now: datetime) -> "Order":
        """Return the order paid this far; the same order when it already was, or further."""
        if to not in _PAYMENT_PROGRESS.get(self.payment_state, ()):
            return self
        return replace(self, payment_state=to, payment_due_time=None, update_time=now)

    def awaiting_payment(self, due: datetime, reason: str, now: datetime) -> "Order":
        """Return the order waiting for its customer or the provider until `due`; `reason` is that of a decline."""
        if (self.payment_state, self.payment_due_time, self.state_reason) == (Payment.PENDING, due, reason):
            return self
        waiting = replace(self, payment_state=Payment.PENDING, payment_due_time=due)
        return replace(waiting, state_reason=reason, update_time=now)

    def with_next_payment(self, now: datetime) -> "Order":
        """Return the order with the id of another payment, as the one before has failed or expired."""
        first = f"payment-{self.id.removeprefix('order-')}"
        tries = int(self.payment_id.removeprefix(first).removeprefix("-") or 1)
        unpaid = replace(self, payment_state=Payment.UNPAID, payment_due_time=None, state_reason="")
        return replace(unpaid, payment_id=f"{first}-{tries + 1}", update_time=now)

    def with_fulfillment(self, to: Fulfillment, now: datetime) -> "Order":
        """Return the order delivered this far; never less than before, except that a release undoes an allocation."""
        released = to is Fulfillment.UNFULFILLED and self.fulfillment_state is Fulfillment.ALLOCATED
        if not released and _FULFILLMENT_RANKS[to] <= _FULFILLMENT_RANKS[self.fulfillment_state]:
            return self
        return replace(self, fulfillment_state=to, update_time=now)

    def with_shipment(self, now: datetime, *, is_shippable: bool) -> "Order":
        """Return the order with the id of its shipment, with which it cannot be cancelled; raises OrderNotShippable.

        `is_shippable` is its saga's: whether the order may be shipped, or is.
        """
        if not is_shippable:
            compensating = self.state is State.CONFIRMED
            raise OrderNotShippable(order_id=self.id, state="being cancelled" if compensating else self.state.name)
        number = f"-{self.ended_shipments + 1}" if self.ended_shipments else ""
        shipment_id = f"shipment-{self.id.removeprefix('order-')}{number}"
        return self if self.shipment_id else replace(self, shipment_id=shipment_id, update_time=now)

    def without_shipment(self, now: datetime) -> "Order":
        """Return the order after its shipment has ended without a departure: it may have another one."""
        if not self.shipment_id:
            return self
        return replace(self, shipment_id="", ended_shipments=self.ended_shipments + 1, update_time=now)


def deliver_if_arrived(order: Order, now: datetime) -> Order:
    """Return a shipped order as DELIVERED when its parcel has arrived: the payment may be captured only afterwards."""
    if order.fulfillment_state is Fulfillment.DELIVERED:
        return order.transition_to(State.DELIVERED, now)
    return order
