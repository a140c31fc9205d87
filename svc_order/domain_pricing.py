"""What a cart costs. Pure: no I/O, no clock, no proto. Amounts are integer minor units, tax included."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shop.order.v1.order_errors import CurrencyMismatch, QuantityTooLarge, SkuNotFound, TotalOutOfRange
from svc_order.domain import Line, OrderTotals

_MAX_QUANTITY = 999
_MAX_TOTAL = 10**12


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogPrice:
    """A SKU that is on sale, as the catalog describes it now."""

    sku: str
    product_id: str
    name: str
    unit_price: int
    currency: str
    tax_rate_basis_points: int
    weight_grams: int


def price_lines(cart: Sequence[tuple[str, int]], prices: Mapping[str, CatalogPrice], currency: str) -> tuple[Line, ...]:
    """Return one line for each SKU, in the cart's order.

    Amounts are rounded once, here, for each line; every total is a sum of rounded amounts. Raises SkuNotFound,
    QuantityTooLarge or CurrencyMismatch.
    """
    quantities: Counter[str] = Counter()
    for sku, quantity in cart:
        quantities[sku] += quantity
    return tuple(_price_line(sku, quantity, prices, currency) for sku, quantity in quantities.items())


def _price_line(sku: str, quantity: int, prices: Mapping[str, CatalogPrice], currency: str) -> Line:
    if sku not in prices:
        raise SkuNotFound(sku=sku)
    if quantity > _MAX_QUANTITY:
        raise QuantityTooLarge(sku=sku, quantity=quantity, limit=_MAX_QUANTITY)
    price = prices[sku]
    if price.currency != currency:
        raise CurrencyMismatch(expected=currency, subject=f"the price of {sku}", actual=price.currency)
    total = price.unit_price * quantity
    return Line(
        sku=sku,
        product_id=price.product_id,
        name=price.name,
        quantity=quantity,
        unit_price=price.unit_price,
        tax_rate_basis_points=price.tax_rate_basis_points,
        tax=included_tax(total, price.tax_rate_basis_points),
        total=total,
        weight_grams=price.weight_grams,
    )


def weight_grams(lines: Sequence[Line]) -> int:
    """Return the weight of a parcel of these lines."""
    return sum(line.weight_grams * line.quantity for line in lines)


def included_tax(gross: int, basis_points: int) -> int:
    """Return the tax that `gross` includes, rounded half up to a whole minor unit."""
    whole = 10_000 + basis_points
    return (2 * gross * basis_points + whole) // (2 * whole)


def quote(lines: tuple[Line, ...], currency: str, shipping_fee: int, shipping_tax_basis_points: int) -> OrderTotals:
    """Return the totals of priced lines; raises TotalOutOfRange when nothing, or too much, would be charged."""
    tax = sum(line.tax for line in lines) + included_tax(shipping_fee, shipping_tax_basis_points)
    totals = OrderTotals(currency=currency, lines=lines, shipping_fee=shipping_fee, tax_total=tax)
    if not 0 < totals.total <= _MAX_TOTAL:
        raise TotalOutOfRange(total=totals.total)
    return totals
