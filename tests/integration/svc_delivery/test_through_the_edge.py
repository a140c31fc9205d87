"""The courier's own webhooks over HTTP, through the JSON edge, to a watcher."""

import asyncio

import httpx
import pytest

from shop.delivery.v1 import shipment_service_pb2 as pb
from tests.edge import processes
from tests.integration.svc_delivery.conftest import SECRET, courier_client, courier_process


@pytest.fixture
def edge_address(free_port):
    """The edge's address, which the courier needs before the edge starts."""
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
async def courier(tmp_path, edge_address):
    """A courier of its own, which sends its webhooks to the edge."""
    webhooks = {"WEBHOOK_URL": f"http://{edge_address}/v1/webhooks/courier", "WEBHOOK_SECRET": SECRET}
    with courier_process(tmp_path, **webhooks) as url:
        async with courier_client(url) as client:
            yield client


@pytest.fixture
async def edge(app, edge_address, repository, tmp_path):
    options = ("--descriptor-set", str(repository / "gen/shop/shop.binpb"), "--upstream", f"*={app.address}")
    with processes.edge(tmp_path / "edge.log", *options, "--listen", edge_address):
        async with httpx.AsyncClient(base_url=f"http://{edge_address}") as client:
            yield client


async def test_a_watch_follows_a_parcel_to_its_delivery(edge, ship, courier, shipments, customer):
    await courier.inject_faults(duplicate_webhooks=True, reorder_webhooks=True, auto_advance_ms=20)
    shipment = await ship()
    with customer("user-1"):
        watch = shipments.WatchShipment(pb.WatchShipmentRequest(shipment_id=shipment.shipment_id))
        async with asyncio.timeout(60):
            seen = [one.shipment async for one in watch]
    assert [update.state for update in seen[-1].updates] == [1, 2, 3, 4, 5, 6]
    versions = [int(one.etag) for one in seen]
    assert versions == sorted(set(versions))


async def test_the_edge_passes_on_the_signed_bytes_and_a_forged_webhook_is_rejected(edge, ship, courier, issuer):
    shipment = await ship()
    forged = await edge.post(
        "/v1/webhooks/courier",
        content=b'{"type": "consignment.status_changed",  "data": {}}',
        headers={"webhook-id": "evt_1", "webhook-timestamp": "1", "webhook-signature": "v1,bm8="},
    )
    assert (forged.status_code, forged.json()["code"]) == (401, 16)
    headers = {"authorization": f"Bearer {issuer.token('user-1')}"}
    seen = (await edge.get(f"/v1/shipments/{shipment.shipment_id}", headers=headers)).json()
    assert (seen["state"], seen["shippingAddress"]["city"]) == ("SHIPMENT_STATE_LABELLED", "Bangkok")


async def test_zones_and_slots_are_created_and_listed_as_json(edge, issuer):
    staff = {"authorization": f"Bearer {issuer.token('staff-1', 'staff')}", "idempotency-key": "zone-1"}
    zone = {
        "zoneId": "bkk",
        "name": "Bangkok",
        "countryCode": "TH",
        "postalPrefixes": ["10"],
        "baseFee": {"currencyCode": "THB", "units": "40"},
        "feePerKg": {"currencyCode": "THB", "units": "10"},
        "taxRateBasisPoints": 700,
        "timeZone": "Asia/Bangkok",
        "slotRules": [
            {
                "weekdays": ["MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY"],
                "startTime": {"hours": 9},
                "endTime": {"hours": 12, "minutes": 30},
                "leadTime": "7200s",
                "capacity": 8,
            }
        ],
    }
    created = await edge.post("/v1/delivery/zones", json=zone, headers=staff)
    assert created.status_code == 200, created.text
    listed = await edge.get("/v1/delivery/slots", params={"countryCode": "TH", "postalCode": "10500", "pageSize": 3})
    assert [slot["available"] for slot in listed.json()["slots"]] == [8, 8, 8]
    quoted = await edge.get(
        "/v1/delivery/quote", params={"countryCode": "TH", "postalCode": "10500", "weightGrams": 1500}
    )
    assert quoted.json()["fee"]["units"] == "60"
