"""Orders: what they cost and where they stand. Pure: no I/O, no clock, no proto. Amounts are integer minor units."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

from shop.order.v1.order_errors import (
    CurrencyMismatch,
    OrderNotShippable,
    QuantityTooLarge,
    SkuNotFound,
    TotalOutOfRange,
)

_MOST_OF_A_SKU = 999
_LARGEST_TOTAL = 10**12


class State(Enum):
    """Where an order stands."""

    PENDING = "PENDING"
    CONFIRMED = "CONFIRMED"
    SHIPPED = "SHIPPED"
    DELIVERED = "DELIVERED"
    COMPLETED = "COMPLETED"
    REJECTED = "REJECTED"
    CANCELLED = "CANCELLED"
    RETURN_REQUESTED = "RETURN_REQUESTED"
    RETURNED = "RETURNED"


#: The legal moves of an order.
MOVES: Mapping[State, frozenset[State]] = {
    State.PENDING: frozenset({State.CONFIRMED, State.REJECTED, State.CANCELLED}),
    State.CONFIRMED: frozenset({State.SHIPPED, State.CANCELLED}),
    State.SHIPPED: frozenset({State.DELIVERED}),
    State.DELIVERED: frozenset({State.COMPLETED, State.RETURN_REQUESTED}),
    State.RETURN_REQUESTED: frozenset({State.RETURNED}),
    State.COMPLETED: frozenset(),
    State.REJECTED: frozenset(),
    State.CANCELLED: frozenset(),
    State.RETURNED: frozenset(),
}


class Payment(Enum):
    """How far an order is paid; later ones never give way to earlier ones."""

    UNPAID = "UNPAID"
    PENDING = "PENDING"
    AUTHORIZED = "AUTHORIZED"
    PAID = "PAID"
    PARTIALLY_REFUNDED = "PARTIALLY_REFUNDED"
    REFUNDED = "REFUNDED"


class Fulfillment(Enum):
    """How far an order is delivered; later ones never give way to earlier ones."""

    UNFULFILLED = "UNFULFILLED"
    ALLOCATED = "ALLOCATED"
    SHIPPED = "SHIPPED"
    DELIVERED = "DELIVERED"
    RETURNED = "RETURNED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What the catalog sells under a SKU now."""

    sku: str
    product_id: str
    name: str
    #: Tax included.
    unit_price: int
    currency: str
    tax_rate_basis_points: int
    weight_grams: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One SKU of an order, with everything about it as it was when the order was made."""

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
class Bill:
    """What a cart costs."""

    currency: str
    lines: tuple[Line, ...]
    shipping_fee: int
    #: Included in `total`.
    tax_total: int

    @property
    def subtotal(self) -> int:
        """The sum of the lines."""
        return sum(line.total for line in self.lines)

    @property
    def total(self) -> int:
        """What is charged."""
        return self.subtotal + self.shipping_fee


def price(cart: Sequence[tuple[str, int]], offers: Mapping[str, Offer], currency: str) -> tuple[Line, ...]:
    """Return one line for each SKU, in the cart's order; raises when one cannot be sold so.

    Amounts are rounded once, here, for each line; every total is a sum of what was rounded.
    """
    wanted: Counter[str] = Counter()
    for sku, quantity in cart:
        wanted[sku] += quantity
    lines = []
    for sku, quantity in wanted.items():
        if sku not in offers:
            raise SkuNotFound(sku=sku)
        if quantity > _MOST_OF_A_SKU:
            raise QuantityTooLarge(sku=sku, quantity=quantity, limit=_MOST_OF_A_SKU)
        offer = offers[sku]
        if offer.currency != currency:
            raise CurrencyMismatch(expected=currency, subject=f"the price of {sku}", actual=offer.currency)
        total = offer.unit_price * quantity
        lines.append(
            Line(
                sku=sku,
                product_id=offer.product_id,
                name=offer.name,
                quantity=quantity,
                unit_price=offer.unit_price,
                tax_rate_basis_points=offer.tax_rate_basis_points,
                tax=included_tax(total, offer.tax_rate_basis_points),
                total=total,
                weight_grams=offer.weight_grams,
            )
        )
    return tuple(lines)


def weight_grams(lines: Sequence[Line]) -> int:
    """Return what a parcel of these lines weighs."""
    return sum(line.weight_grams * line.quantity for line in lines)


def included_tax(gross: int, basis_points: int) -> int:
    """Return the tax that `gross` includes, rounded half up to a whole minor unit."""
    whole = 10_000 + basis_points
    return (2 * gross * basis_points + whole) // (2 * whole)


def bill(lines: tuple[Line, ...], currency: str, shipping_fee: int, shipping_tax_basis_points: int) -> Bill:
    """Return the whole bill; raises TotalOutOfRange for nothing to pay or more than an order may be."""
    tax = sum(line.tax for line in lines) + included_tax(shipping_fee, shipping_tax_basis_points)
    made = Bill(currency=currency, lines=lines, shipping_fee=shipping_fee, tax_total=tax)
    if not 0 < made.total <= _LARGEST_TOTAL:
        raise TotalOutOfRange(total=made.total)
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A purchase."""

    id: str
    user_id: str
    bill: Bill
    #: google.protobuf bytes of a shop.type.v1.Address: the domain carries it and never looks inside.
    shipping_address: bytes
    slot_id: str
    reservation_id: str
    payment_id: str
    create_time: datetime
    update_time: datetime
    state: State = State.PENDING
    state_reason: str = ""
    #: In the words of who cancelled it.
    state_message: str = ""
    payment_state: Payment = Payment.UNPAID
    fulfillment_state: Fulfillment = Fulfillment.UNFULFILLED
    shipment_id: str = ""
    version: int = 1

    def moved(self, to: State, now: datetime, reason: str = "", message: str = "") -> "Order":
        """Return the order in another state; the same order when it is there already or the move is not legal."""
        if to not in MOVES[self.state]:
            return self
        return replace(self, state=to, state_reason=reason, state_message=message, update_time=now)

    def paid(self, to: Payment, now: datetime) -> "Order":
        """Return the order as far as it is paid now: never less than before, but that a void undoes a promise."""
        order = list(Payment)
        voided = to is Payment.UNPAID and self.payment_state in (Payment.PENDING, Payment.AUTHORIZED)
        if not voided and order.index(to) <= order.index(self.payment_state):
            return self
        return replace(self, payment_state=to, update_time=now)

    def fulfilled(self, to: Fulfillment, now: datetime) -> "Order":
        """Return the order as far as it is delivered now: never less than before, but that a release undoes it."""
        order = list(Fulfillment)
        released = to is Fulfillment.UNFULFILLED and self.fulfillment_state is Fulfillment.ALLOCATED
        if not released and order.index(to) <= order.index(self.fulfillment_state):
            return self
        return replace(self, fulfillment_state=to, update_time=now)

    def tied(self, shipment_id: str, now: datetime, *, ships: bool) -> "Order":
        """Return the order with its shipment, after which it cannot be cancelled; raises OrderNotShippable.

        `ships` tells whether its saga lets the parcel leave.
        """
        if not ships:
            given_up = self.state is State.CONFIRMED
            raise OrderNotShippable(order_id=self.id, state="being cancelled" if given_up else self.state.name)
        if self.shipment_id not in ("", shipment_id):
            raise OrderNotShippable(order_id=self.id, state="on its way")
        return self if self.shipment_id else replace(self, shipment_id=shipment_id, update_time=now)


def arrived(order: Order, now: datetime) -> Order:
    """Return a shipped order as DELIVERED when its parcel has arrived, however late the money came."""
    if order.fulfillment_state is Fulfillment.DELIVERED:
        return order.moved(State.DELIVERED, now)
    return order
