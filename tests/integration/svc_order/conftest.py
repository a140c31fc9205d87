"""The whole shop in one process, service by service, over real databases; the partners outside are processes.

svc_order and its database are new for each test. What it calls runs for all tests, and is emptied for each.
"""

import os
import signal
import subprocess
import sys
import uuid
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

import asyncpg
import httpx
import pytest
import pytest_asyncio
import redis.asyncio as redis

from chassis.testing import Issuer, client_for, eventually, serving
from shop.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from shop.delivery.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from shop.delivery.v1.shipment_service_pb2_grpc import ShipmentServiceStub
from shop.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub
from shop.order.v1.saga_service_pb2_grpc import SagaServiceStub
from shop.payment.v1.payment_service_pb2_grpc import PaymentServiceStub
from shop.topics import EVENTS
from svc_order import events, events_payment
from svc_order.domain_saga import Waits
from tests.integration.svc_order.shop import PARTICIPANTS, QUICK, Shop, stock, upstreams

HERE = Path(__file__).parent
SECRET = "whsec_b3JkZXJzLWFuZC10aGVpci1zYWdhcy1hcmUtdGVzdGVk"
#: The topics from which svc_order consumes events.
TOPICS = {EVENTS[kind.DESCRIPTOR.full_name].topic for kind in (*events.handlers(Waits()), *events_payment.HANDLERS)}
OUTSIDE = {
    "payment_provider_key": "key",
    "payment_webhook_secret": SECRET,
    "payment_provider_timeout": 7.0,  # longer than the provider is slow in any test
    "courier_key": "key",
    "courier_webhook_secret": SECRET,
    "courier_timeout": 7.0,
}
#: All tables but the outbox and those that a service keeps while it runs.
TABLES = """
SELECT string_agg('DELETE FROM ' || oid::regclass, ';') FROM pg_class WHERE relkind = 'r'
    AND relnamespace = 'public'::regnamespace AND relname NOT IN ('schema_migration', 'relay', 'outbox')"""


def pytest_collection_modifyitems(items):
    """Run these tests on the event loop of the session, where the participants run."""
    for item in items:
        if item.path.is_relative_to(HERE) and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.fixture(scope="session")
def issuer():
    """One for all tests, like the participants."""
    return Issuer()


@pytest.fixture(scope="session")
def event_prefix():
    """One for all tests, like the participants."""
    return f"{uuid.uuid4().hex[:8]}."


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


@pytest.fixture(scope="session")
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
    connections: list[asyncpg.Connection]

    async def empty(self):
        """Delete what an earlier test left, once the events of it are published."""
        for rows in self.connections:
            await rows.execute(await rows.fetchval(TABLES))
        for rows in self.connections:
            waiting = "SELECT count(*) FROM outbox WHERE publish_time IS NULL"
            await eventually(partial(rows.fetchval, waiting), lambda count: count == 0)
            await rows.execute("DELETE FROM outbox")


@pytest.fixture(scope="session")
def participants_of(part, templates):
    """Lends participants over databases of their own, with changed settings by service."""

    @asynccontextmanager
    async def participants_of(**changes):
        async with AsyncExitStack() as stack:
            found = Participants({}, {}, [])
            for name in PARTICIPANTS:
                database = found.databases[name] = await stack.enter_async_context(templates.database(name))
                app = await stack.enter_async_context(part(name, database, **changes.get(name, {})))
                found.addresses[name] = app.address
                rows = await asyncpg.connect(database)
                stack.push_async_callback(rows.close)
                await rows.execute("SET session_replication_role = replica")  # triggers keep some rows as they are
                found.connections.append(rows)
            yield found

    return participants_of


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_participants(participants_of):
    async with participants_of() as participants:
        yield participants


@pytest_asyncio.fixture(loop_scope="session")
async def participants(request, participants_of, shared_participants, payments_settings):
    """Participants without rows: those of all tests, or new ones for a test that breaks or changes them.

    While the provider does not answer, svc_payment opens its circuit, which would also be open for the next test. A
    meter counts on the connections that are opened after it.
    """
    await shared_participants.empty()
    if payments_settings or {"provider", "meter"} & set(request.fixturenames):
        async with participants_of(svc_payment=payments_settings) as participants:
            yield participants
    else:
        yield shared_participants


@pytest_asyncio.fixture(loop_scope="session")
async def no_old_events(redis_url, event_prefix):
    """The consumer group of svc_order at the end of its topics, whose events are about orders of earlier tests."""
    async with redis.from_url(redis_url, protocol=2) as client:
        for topic in TOPICS:
            stream = f"{{{event_prefix}bus}}:{topic}"
            await client.xgroup_create(stream, "-", id="$", mkstream=True)  # creates the stream, too
            await client.xgroup_destroy(stream, "-")
            await client.xgroup_destroy(stream, "svc_order")
            await client.xgroup_create(stream, "svc_order", id="$")
        for key in [key async for key in client.scan_iter(f"{event_prefix}rate:*")]:
            await client.delete(key)


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


@pytest_asyncio.fixture(loop_scope="session")
async def provider(partners):
    """Sets what the next operations of the payment provider meet; nothing is left of it for the next test."""
    headers = {"authorization": "Bearer key"}
    async with httpx.AsyncClient(base_url=partners["payment_provider_url"], headers=headers) as client:

        async def meets(*words, **faults):
            (await client.put("/v1/faults", json={"next": list(words), **faults})).raise_for_status()

        yield meets
        await meets()


@pytest_asyncio.fixture(loop_scope="session")
async def rows(shop):
    """A connection to the database of the orders."""
    connection = await asyncpg.connect(shop.databases["svc_order"])
    await connection.execute("SET session_replication_role = replica")  # a test ages rows that triggers keep
    yield connection
    await connection.close()


@pytest_asyncio.fixture(loop_scope="session")
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


@pytest_asyncio.fixture(loop_scope="session")
async def shop(part, templates, issuer, *, participants, no_old_events, orders_settings):
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
