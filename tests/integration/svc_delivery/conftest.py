"""svc_delivery with the courier simulator as a process of its own; it calls no other service."""

import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import asyncpg
import httpx
import pytest
from google.type.dayofweek_pb2 import DayOfWeek
from google.type.money_pb2 import Money

from chassis.testing import as_user, client_for, serving
from shop.delivery.v1 import delivery_service_pb2 as pb
from shop.delivery.v1 import shipment_service_pb2 as shipment_pb
from shop.delivery.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from shop.delivery.v1.shipment_service_pb2_grpc import ShipmentServiceStub
from shop.type.v1.address_pb2 import Address
from svc_delivery.__main__ import compose
from svc_delivery.settings import Settings

SECRET = "whsec_c2ltdWxhdG9ycy1hbmQtdGhlLXNob3Atc2hhcmUtdGhpcw=="
KEY = "key-of-the-tests"
EVERY_DAY = [DayOfWeek.Name(day) for day in range(1, 8)]
ADDRESS = Address(recipient="Somchai", line1="1 Silom Road", city="Bangkok", postal_code="10500", country_code="TH")


@dataclass(frozen=True)
class CourierClient:
    """The courier's API as its own staff uses it."""

    url: str
    http: httpx.AsyncClient

    async def consignments(self, reference: str) -> list[dict]:
        """Return the consignments with our reference: never more than one."""
        return (await self.http.get("/v1/consignments", params={"reference": reference})).json()["data"]

    async def advance(self, reference: str, to: str | None = None) -> dict:
        """Move a parcel to its next status, or to `to`, and return the consignment."""
        (consignment,) = await self.consignments(reference)
        body = {"to": to} if to else {}
        answer = await self.http.post(f"/v1/consignments/{consignment['id']}/advance", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def cancel(self, reference: str) -> dict:
        (consignment,) = await self.consignments(reference)
        return (await self.http.post(f"/v1/consignments/{consignment['id']}/cancel", json={})).json()

    async def inject_faults(self, **faults: object) -> None:
        answer = await self.http.put("/v1/faults", json=faults)
        assert answer.status_code == 200, answer.text


@contextmanager
def courier_process(folder: Path, **env: str) -> Iterator[str]:
    """Run a courier as a user starts it; yield its URL."""
    with (folder / "courier.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mesh.simulators.courier"],
            env={"PATH": os.environ["PATH"], "LISTEN": "127.0.0.1:0", "API_KEY": KEY} | env,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        line = process.stdout.readline()
        assert line.startswith("listening on "), (folder / "courier.log").read_text()
        yield f"http://{line.split()[-1]}"
    finally:
        process.kill()
        process.stdout.close()
        process.wait(timeout=10)


@asynccontextmanager
async def courier_client(url: str) -> AsyncIterator[CourierClient]:
    async with httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {KEY}"}) as http:
        client = CourierClient(url, http)
        yield client
        await client.inject_faults()


@pytest.fixture(scope="session")
def courier_url(tmp_path_factory):
    with courier_process(tmp_path_factory.mktemp("courier")) as url:
        yield url


@pytest.fixture
async def courier(courier_url):
    """The courier, which outlives the test; the faults that the test injects do not."""
    async with courier_client(courier_url) as client:
        yield client


@pytest.fixture
def order_id() -> str:
    """An order id that the courier has not seen."""
    return f"order-{uuid.uuid4().hex}"


@pytest.fixture
async def database(fresh_database):
    async with fresh_database("svc_delivery") as url:
        yield url


@pytest.fixture
async def rows(database):
    """A connection to the service's database."""
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


@pytest.fixture
def courier_timeout():
    """The timeout of a courier call in seconds: generous, unless a test waits for it and parametrizes this."""
    return 7.0


@pytest.fixture
def settings(database, redis_url, event_prefix, courier, courier_timeout):
    """Settings with short intervals."""
    return Settings(
        database_url=database,
        redis_url=redis_url,
        event_prefix=event_prefix,
        upstreams="*=127.0.0.1:1",  # it calls no other service
        courier_url=courier.url,
        courier_key=KEY,
        courier_webhook_secret=SECRET,
        courier_timeout=courier_timeout,
        slot_seconds=0.05,
        dispatch_seconds=0.05,
    )


@pytest.fixture
def replica(settings, issuer):
    """Serve one more replica of the service, with changed settings if any: `async with replica() as app`."""
    return lambda **changes: serving("svc_delivery", replace(settings, **changes), compose, issuer)


@pytest.fixture
async def app(replica):
    async with replica() as app:
        yield app


@pytest.fixture
async def booking_client(app):
    """DeliveryService as svc_order calls it."""
    async with client_for(app.address, DeliveryServiceStub, caller="svc_order") as stub:
        yield stub


@pytest.fixture
async def delivery(app):
    """DeliveryService as clients call it through the edge."""
    async with client_for(app.address, DeliveryServiceStub) as stub:
        yield stub


@pytest.fixture
async def shipments(app):
    """ShipmentService as clients call it through the edge."""
    async with client_for(app.address, ShipmentServiceStub) as stub:
        yield stub


@pytest.fixture
def staff(issuer):
    """Make calls as staff: `with staff():`."""
    return lambda: as_user(f"Bearer {issuer.token('staff-1', 'staff')}")


@pytest.fixture
def customer(issuer):
    """Make calls as a customer: `with customer():`."""
    return lambda user_id="user-1", *roles: as_user(f"Bearer {issuer.token(user_id, *roles)}")


def a_zone(zone_id="bkk", *prefixes, **changes) -> pb.Zone:
    values = {
        "name": "Bangkok",
        "country_code": "TH",
        "base_fee": Money(currency_code="THB", units=40),
        "fee_per_kg": Money(currency_code="THB", units=12, nanos=500_000_000),
        "tax_rate_basis_points": 700,
        "time_zone": "Asia/Bangkok",
    }
    return pb.Zone(zone_id=zone_id, postal_prefixes=prefixes or ["10"], **values | changes)


@pytest.fixture
def create_zone(delivery, staff):
    """Create a zone: `await create_zone(a_zone("bkk", "10"))`."""

    async def create_zone(zone=None, *, request_id=None):
        with staff():
            return await delivery.CreateZone(
                pb.CreateZoneRequest(zone=zone or a_zone(), request_id=request_id or uuid.uuid4().hex)
            )

    return create_zone


def shipment_request(order_id, *, user_id="user-1", slot_id="", **address) -> shipment_pb.CreateShipmentRequest:
    """Return the request for the shipment of an order to ADDRESS, with changed fields if any."""
    to = Address()
    to.CopyFrom(ADDRESS)
    to.MergeFrom(Address(**address))
    return shipment_pb.CreateShipmentRequest(
        order_id=order_id,
        shipment_id=shipment_id(order_id),
        user_id=user_id,
        shipping_address=to,
        slot_id=slot_id,
        weight_grams=1200,
        actor="staff-1",
    )


def shipment_id(order_id) -> str:
    return f"shipment-{order_id.removeprefix('order-')}"


@pytest.fixture
async def shipment_client(app):
    """ShipmentService as svc_order calls it."""
    async with client_for(app.address, ShipmentServiceStub, caller="svc_order") as stub:
        yield stub


@pytest.fixture
def ship(shipment_client, order_id):
    """Create the shipment of the order, or repeat the request: `shipment = await ship()`."""

    async def ship(of=order_id, **changes):
        return await shipment_client.CreateShipment(shipment_request(of, **changes))

    return ship


@pytest.fixture
def update_status(shipments, staff):
    """Update a shipment's status as staff: `await update_status(shipment, shipment_pb.SHIPMENT_STATE_FAILED)`."""

    async def update_status(shipment, state, *, note="", request_id=None):
        request = shipment_pb.UpdateShipmentStatusRequest(
            shipment_id=shipment.shipment_id,
            state=state,
            note=note,
            request_id=request_id or f"{shipment.shipment_id}-{state}",
        )
        with staff():
            return await shipments.UpdateShipmentStatus(request)

    return update_status
