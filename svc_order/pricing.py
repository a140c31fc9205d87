"""Quotes carts: the catalog knows the prices, svc_delivery the shipping fee."""

from collections.abc import Sequence

from chassis.types.money import minor_units, text
from shop.catalog.v1 import catalog_service_pb2 as catalog_pb
from shop.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from shop.chassis.v1.chassis_errors import InvalidRequest
from shop.delivery.v1 import delivery_service_pb2 as delivery_pb
from shop.delivery.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from shop.order.v1 import order_service_pb2 as pb
from shop.order.v1.order_errors import CurrencyMismatch, PriceChanged
from shop.type.v1.address_pb2 import Address
from svc_order import domain_pricing
from svc_order.converters import catalog_price_from_proto
from svc_order.domain import OrderTotals

#: The heaviest parcel that QuoteDelivery accepts.
_MAX_WEIGHT_GRAMS = 100_000_000


class Pricing:
    """Quotes carts at the current prices."""

    def __init__(self, catalog: CatalogServiceStub, delivery: DeliveryServiceStub) -> None:
        """Call the catalog for prices and svc_delivery for shipping fees."""
        self._catalog = catalog
        self._delivery = delivery

    async def quote(self, cart: Sequence[pb.CartLine], currency: str, address: Address | None) -> OrderTotals:
        """Return what a cart costs now; without an address, without its delivery."""
        skus = list(dict.fromkeys(line.sku for line in cart))
        reply = await self._catalog.BatchGetVariants(catalog_pb.BatchGetVariantsRequest(skus=skus))
        prices = {variant.sku: catalog_price_from_proto(variant) for variant in reply.variants if variant.active}
        lines = domain_pricing.price_lines([(line.sku, line.quantity) for line in cart], prices, currency)
        if address is None:
            return domain_pricing.quote(lines, currency, 0, 0)
        weight = domain_pricing.weight_grams(lines)
        if weight > _MAX_WEIGHT_GRAMS:
            problem = f"weigh more than {_MAX_WEIGHT_GRAMS} g, and cannot be delivered"
            raise InvalidRequest(field="lines", problem=problem)
        request = delivery_pb.QuoteDeliveryRequest(
            country_code=address.country_code,
            postal_code=address.postal_code,
            weight_grams=weight,
            currency_code=currency,
        )
        shipping = await self._delivery.QuoteDelivery(request)
        return domain_pricing.quote(lines, currency, minor_units(shipping.fee, "fee"), shipping.tax_rate_basis_points)


def check_expected_total(request: pb.CreateOrderRequest, totals: OrderTotals) -> None:
    """Raise PriceChanged or CurrencyMismatch unless the totals are what the customer expects."""
    if not request.HasField("expected_total"):
        return
    expected = request.expected_total
    if expected.currency_code != totals.currency:
        raise CurrencyMismatch(expected=totals.currency, subject="expected_total", actual=expected.currency_code)
    minor = minor_units(expected, "expected_total")
    if minor != totals.total:
        raise PriceChanged(
            actual_total=text(totals.total, totals.currency), expected_total=text(minor, totals.currency)
        )
