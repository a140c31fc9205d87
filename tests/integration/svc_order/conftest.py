"""The whole shop in one process, service by service, over real databases; the partners outside are processes."""

import os
import signal
import subprocess
import sys
import uuid
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib import import_module

import asyncpg
import httpx
import pytest

from chassis.testing import as_user, client_for, serving
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

SECRET = "whsec_b3JkZXJzLWFuZC10aGVpci1zYWdhcy1hcmUtdGVzdGVk"
PARTS = {
    "svc_catalog": "shop.catalog.v1.CatalogService",
    "svc_inventory": "shop.inventory.v1.InventoryService",
    "svc_order": "shop.order.v1.OrderService",
    "svc_payment": "shop.payment.v1.PaymentService",
    "svc_delivery": "shop.delivery.v1.DeliveryService",
}
#: How long the orders wait for what a test would have to wait for, too.
QUICK = {"saga_poll_seconds": 0.05, "saga_lease_seconds": 2.0, "complete_seconds": 0.05}
OUTSIDE = {
    "payment_provider_key": "key",
    "payment_webhook_secret": SECRET,
    "payment_provider_timeout": 7.0,  # longer than the provider is slow in any test
    "courier_key": "key",
    "courier_webhook_secret": SECRET,
    "courier_timeout": 7.0,
}
ADDRESS = Address(
    recipient="Nok", line1="1 Main Road", city="Bangkok", postal_code="10110", country_code="TH", phone="+66 2 000"
)


def upstreams(addresses, **others):
    """Return the setting UPSTREAMS; `others` replaces the address of a workload."""
    services = [*((PARTS[name], name) for name in PARTS), ("shop.delivery.v1.ShipmentService", "svc_delivery")]
    return ",".join(f"{service}={ {**addresses, **others}[name] }" for service, name in services)


@dataclass
class Shop:
    """The stubs that a test buys and operates with, and the ports and databases behind them."""

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


@pytest.fixture(scope="session")
def partners(tmp_path_factory, free_port):
    """The payment provider and the courier, as processes."""
    urls, processes = {}, []
    for name in ("payment_provider", "courier"):
        port = free_port()
        environment = {
            **os.environ,
            "LISTEN": f"127.0.0.1:{port}",
            "API_KEY": "key",
            "WEBHOOK_URL": "http://127.0.0.1:9/v1/webhooks",
            "WEBHOOK_SECRET": SECRET,
        }
        command = [sys.executable, "-m", f"mesh.simulators.{name}"]
        with (tmp_path_factory.mktemp(name) / "log").open("wb") as log:
            processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        urls[f"{name}_url"] = f"http://127.0.0.1:{port}"
    for url in urls.values():
        _await_health(url)
    yield urls
    for process in processes:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def _await_health(url):
    with httpx.Client(transport=httpx.HTTPTransport(retries=50)) as client:
        assert client.get(f"{url}/healthz", timeout=20).status_code == 200


@pytest.fixture
def part(templates, redis_url, event_prefix, issuer, partners):
    """Lends one service of the shop, on the ports and databases that `shop` chose."""

    @asynccontextmanager
    async def part(name, addresses, databases, **changes):
        module = import_module(f"{name}.__main__")
        settings_type = import_module(f"{name}.settings").Settings
        fields = {
            "listen": addresses[name],
            "database_url": databases[name],
            "database_connections": 5,
            "redis_url": redis_url,
            "event_prefix": event_prefix,
            "upstreams": upstreams(addresses),
            **{
                key: value
                for key, value in {**OUTSIDE, **partners}.items()
                if key in settings_type.__dataclass_fields__
            },
            **changes,
        }
        async with serving(name, settings_type(**fields), module.compose, issuer) as app:
            yield app

    return part


@pytest.fixture
def another(part, shop, free_port):
    """Lends a stub of another process of the orders, as far as they can tell, over the same database."""

    @asynccontextmanager
    async def another(**changes):
        addresses = {**shop.addresses, "svc_order": f"127.0.0.1:{free_port()}"}
        async with (
            part("svc_order", addresses, shop.databases, **{**QUICK, **changes}),
            client_for(addresses["svc_order"], OrderServiceStub) as orders,
        ):
            yield orders

    return another


@pytest.fixture
async def provider(partners):
    """Sets what the next operations of the payment provider meet; nothing is left of it for the next test."""
    headers = {"authorization": "Bearer key"}
    async with httpx.AsyncClient(base_url=partners["payment_provider_url"], headers=headers) as client:

        async def meets(*words, **faults):
            (await client.put("/v1/faults", json={"next": list(words), **faults})).raise_for_status()

        yield meets
        await meets()


@pytest.fixture
async def rows(shop):
    """A connection to the database of the orders."""
    connection = await asyncpg.connect(shop.databases["svc_order"])
    await connection.execute("SET session_replication_role = replica")  # a test ages rows that triggers keep
    yield connection
    await connection.close()


@pytest.fixture
async def look_at_provider(shop):
    """Have svc_payment fetch what its provider says about all payments, as a webhook would."""
    connection = await asyncpg.connect(shop.databases["svc_payment"])

    async def look():
        await connection.execute("UPDATE payment SET next_attempt_time = now()")

    yield look
    await connection.close()


@pytest.fixture
def orders_settings():
    """Settings of svc_order that a test changes by parametrizing this."""
    return {}


@pytest.fixture
def payments_settings():
    """Settings of svc_payment that a test changes by parametrizing this."""
    return {}


@pytest.fixture
def changed_settings(orders_settings, payments_settings):
    """The settings of each service that are not those of every test."""
    return {"svc_order": {**QUICK, **orders_settings}, "svc_payment": payments_settings}


@pytest.fixture
async def shop(part, templates, issuer, changed_settings, free_port):
    addresses = {name: f"127.0.0.1:{free_port()}" for name in PARTS}
    async with AsyncExitStack() as stack:

        async def client(name, stub):
            return await stack.enter_async_context(client_for(addresses[name], stub))

        databases = {name: await stack.enter_async_context(templates.database(name)) for name in PARTS}
        stubs = {}
        for name in PARTS:
            await stack.enter_async_context(part(name, addresses, databases, **changed_settings.get(name, {})))
            domain = name.removeprefix("svc_")
            stub = getattr(import_module(f"shop.{domain}.v1.{domain}_service_pb2_grpc"), f"{domain.title()}ServiceStub")
            stubs[domain] = await client(name, stub)
        shop = Shop(
            orders=stubs["order"],
            sagas=await client("svc_order", SagaServiceStub),
            catalog=stubs["catalog"],
            inventory=stubs["inventory"],
            payments=stubs["payment"],
            delivery=stubs["delivery"],
            shipments=await client("svc_delivery", ShipmentServiceStub),
            addresses=addresses,
            databases=databases,
            issuer=issuer,
        )
        await _stock(shop)
        yield shop


async def _stock(shop):
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
