"""The whole shop in one process, service by service, over real databases; the partners outside are processes.

The services and their databases are new for each test.
"""

import os
import signal
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import asyncpg
import httpx
import pytest

from chassis.testing import client_for, serving
from shop.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from shop.delivery.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from shop.delivery.v1.shipment_service_pb2_grpc import ShipmentServiceStub
from shop.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub
from shop.order.v1.saga_service_pb2_grpc import SagaServiceStub
from shop.payment.v1.payment_service_pb2_grpc import PaymentServiceStub
from tests.integration.svc_order.shop import PARTICIPANTS, QUICK, Shop, stock, upstreams

HERE = Path(__file__).parent
SECRET = "whsec_b3JkZXJzLWFuZC10aGVpci1zYWdhcy1hcmUtdGVzdGVk"
OUTSIDE = {
    "payment_provider_key": "key",
    "payment_webhook_secret": SECRET,
    "payment_provider_timeout": 7.0,  # longer than the provider is slow in any test
    "courier_key": "key",
    "courier_webhook_secret": SECRET,
    "courier_timeout": 7.0,
}


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
def part(redis_url, event_prefix, issuer, partners):
    """Lends one service of the shop over a database."""

    @asynccontextmanager
    async def part(name, database, **changes):
        module = import_module(f"{name}.__main__")
        settings_type = import_module(f"{name}.settings").Settings
        fields = {
            "database_url": database,
            "database_connections": 5,
            "redis_url": redis_url,
            "event_prefix": event_prefix,
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


@dataclass
class Participants:
    """The services that svc_order calls, over their databases."""

    addresses: dict[str, str]
    databases: dict[str, str]


@pytest.fixture
async def participants(request, part, templates, payments_settings):
    """The services that svc_order calls, without rows. A meter counts on the connections that are opened after it."""
    if "meter" in request.fixturenames:
        request.getfixturevalue("meter")
    async with AsyncExitStack() as stack:
        found = Participants({}, {})
        for name in PARTICIPANTS:
            database = found.databases[name] = await stack.enter_async_context(templates.database(name))
            changes = payments_settings if name == "svc_payment" else {}
            app = await stack.enter_async_context(part(name, database, **changes))
            found.addresses[name] = app.address
        yield found


@pytest.fixture
def another(part, shop):
    """Lends a stub of another process of the orders, as far as they can tell, over the same database."""

    @asynccontextmanager
    async def another(**changes):
        settings = {**QUICK, "upstreams": upstreams(shop.addresses), **changes}
        database = settings.pop("database_url", shop.databases["svc_order"])
        async with (
            part("svc_order", database, **settings) as app,
            client_for(app.address, OrderServiceStub) as orders,
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
async def shop(part, templates, issuer, *, participants, orders_settings):
    """The shop with two products, and with a svc_order and orders of the test's own."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(templates.database("svc_order"))
        settings = {**QUICK, "upstreams": upstreams(participants.addresses), **orders_settings}
        app = await stack.enter_async_context(part("svc_order", database, **settings))
        addresses = {**participants.addresses, "svc_order": app.address}

        async def client(name, stub):
            return await stack.enter_async_context(client_for(addresses[name], stub))

        shop = Shop(
            orders=await client("svc_order", OrderServiceStub),
            sagas=await client("svc_order", SagaServiceStub),
            catalog=await client("svc_catalog", CatalogServiceStub),
            inventory=await client("svc_inventory", InventoryServiceStub),
            payments=await client("svc_payment", PaymentServiceStub),
            delivery=await client("svc_delivery", DeliveryServiceStub),
            shipments=await client("svc_delivery", ShipmentServiceStub),
            addresses=addresses,
            databases={**participants.databases, "svc_order": database},
            issuer=issuer,
        )
        await stock(shop)
        yield shop
