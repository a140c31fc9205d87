"""The shop as a test uses it: the stubs of its services, its goods, and a request to buy them."""

import uuid
from dataclasses import dataclass

from chassis.testing import as_user
from chassis.types.money import money
from shop.catalog.v1 import catalog_service_pb2 as catalog_pb
from shop.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from shop.delivery.v1 import delivery_service_pb2 as delivery_pb
from shop.delivery.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from shop.delivery.v1.shipment_service_pb2_grpc import ShipmentServiceStub
from shop.inventory.v1 import inventory_service_pb2 as inventory_pb
from shop.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub
from shop.order.v1 import order_service_pb2 as pb
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub
from shop.order.v1.saga_service_pb2_grpc import SagaServiceStub
from shop.payment.v1.payment_service_pb2_grpc import PaymentServiceStub
from shop.type.v1.address_pb2 import Address

#: What svc_order calls.
PARTICIPANTS = {
    "svc_catalog": ("shop.catalog.v1.CatalogService",),
    "svc_inventory": ("shop.inventory.v1.InventoryService",),
    "svc_payment": ("shop.payment.v1.PaymentService",),
    "svc_delivery": ("shop.delivery.v1.DeliveryService", "shop.delivery.v1.ShipmentService"),
}
#: How long the orders wait for what a test would have to wait for, too.
QUICK = {"saga_poll_seconds": 0.05, "saga_lease_seconds": 2.0, "complete_seconds": 0.05}
ADDRESS = Address(
    recipient="Nok", line1="1 Main Road", city="Bangkok", postal_code="10110", country_code="TH", phone="+66 2 000"
)


def upstreams(addresses, **others):
    """Return the setting UPSTREAMS; `others` replaces the address of a workload."""
    found = {**addresses, **others}
    return ",".join(f"{service}={found[name]}" for name, services in PARTICIPANTS.items() for service in services)


@dataclass
class Shop:
    """The stubs that a test buys and operates with, and the addresses and databases behind them."""

    orders: OrderServiceStub
    sagas: SagaServiceStub
    catalog: CatalogServiceStub
    inventory: InventoryServiceStub
    payments: PaymentServiceStub
    delivery: DeliveryServiceStub
    shipments: ShipmentServiceStub
    addresses: dict[str, str]
    databases: dict[str, str]
    issuer: object

    def customer(self, name="customer-1", *roles):
        return as_user(f"Bearer {self.issuer.token(name, *roles or ('customer',))}")

    def staff(self):
        return as_user(f"Bearer {self.issuer.token('staff-1', 'staff', 'admin')}")


async def stock(shop):
    """Put two products on the shelves, and deliver to Bangkok."""
    with shop.staff():
        for sku, price in (("shirt", 10_700), ("coat", 107_000)):
            variant = catalog_pb.Variant(
                sku=sku, price=money(price, "THB"), tax_rate_basis_points=700, weight_grams=500
            )
            product = catalog_pb.Product(product_id=f"p-{sku}", name=sku.title(), variants=[variant])
            await shop.catalog.CreateProduct(catalog_pb.CreateProductRequest(product=product, request_id=f"c-{sku}"))
            await shop.inventory.SetStock(
                inventory_pb.SetStockRequest(sku=sku, location_id="bkk", on_hand=10, request_id=f"s-{sku}")
            )
        zone = delivery_pb.Zone(
            zone_id="bangkok",
            name="Bangkok",
            country_code="TH",
            postal_prefixes=["10"],
            base_fee=money(5_000, "THB"),
            fee_per_kg=money(1_000, "THB"),
            tax_rate_basis_points=700,
            time_zone="Asia/Bangkok",
        )
        await shop.delivery.CreateZone(delivery_pb.CreateZoneRequest(zone=zone, request_id="z-1"))


def buy(*lines, token="tok_ok", request_id=None, **changes):
    """Return a request to buy (sku, quantity) lines."""
    return pb.CreateOrderRequest(
        **{
            "lines": [pb.CartLine(sku=sku, quantity=quantity) for sku, quantity in lines],
            "currency_code": "THB",
            "shipping_address": ADDRESS,
            "payment_method_token": token,
            "request_id": request_id or uuid.uuid4().hex,
            **changes,
        }
    )
