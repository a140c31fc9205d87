"""The courier's webhooks: signatures, and late, repeated and foreign ones, which change nothing."""

import asyncio
import random
import shutil
import time
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path

import asyncpg
import grpc
import orjson
import pytest

from chassis.postgres.migrate import migrate
from chassis.testing import eventually
from mesh.simulators.webhooks import sign
from shop.delivery.v1 import shipment_service_pb2 as pb
from tests.integration.svc_delivery.conftest import SECRET
from tests.integration.svc_delivery.courier_webhooks import CourierWebhooks, as_of_version

OTHER_SECRET = "whsec_dGhlLW5ldy1zZWNyZXQtdGhhdC1mb2xsb3dzLWFmdGVy"
OK, UNAUTHENTICATED, INVALID_ARGUMENT = (
    grpc.StatusCode.OK,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.INVALID_ARGUMENT,
)


@pytest.fixture
def webhooks(app):
    return CourierWebhooks(app.address)


@pytest.fixture
async def shipment(ship):
    return await ship()


@pytest.fixture
def states(shipments, customer, shipment):
    """Return the states that the shipment has been in: `await states()`."""

    async def states():
        with customer("user-1"):
            seen = await shipments.GetShipment(pb.GetShipmentRequest(shipment_id=shipment.shipment_id))
        return [pb.ShipmentState.Name(one.state).removeprefix("SHIPMENT_STATE_") for one in seen.updates]

    return states


async def test_a_webhook_updates_the_shipment(webhooks, courier, shipment, states):
    assert await webhooks.send(await courier.advance(shipment.shipment_id)) is OK
    assert await states() == ["CREATED", "LABELLED", "PICKED_UP"]


async def test_a_webhook_that_is_received_again_is_applied_once(webhooks, courier, shipment, states, rows):
    consignment = await courier.advance(shipment.shipment_id)
    answers = await asyncio.gather(*(webhooks.send(consignment, webhook_id="evt_1") for _ in range(8)))
    answers += [
        await webhooks.send(consignment, webhook_id="evt_1"),
        await webhooks.send(consignment, webhook_id="evt_2"),
    ]
    assert set(answers) == {OK}
    assert await states() == ["CREATED", "LABELLED", "PICKED_UP"]
    assert await rows.fetchval("SELECT count(*) FROM outbox") == 3
    assert await rows.fetchval("SELECT count(*) FROM webhook") == 2


@pytest.mark.parametrize("seed", range(4))
async def test_webhooks_in_any_order_lead_to_the_parcel_s_state(webhooks, courier, shipment, states, seed):
    for to in ("PICKED_UP", "FAILED", "IN_TRANSIT", "OUT_FOR_DELIVERY"):
        await courier.advance(shipment.shipment_id, to)
    consignment = await courier.advance(shipment.shipment_id, "DELIVERED")
    versions = [as_of_version(consignment, version) for version in range(1, consignment["version"] + 1)]
    random.Random(seed).shuffle(versions)
    latest = 0
    for one in versions:
        assert await webhooks.send(one) is OK
        latest = max(latest, one["version"])
        assert await states() == ["CREATED", *(movement["status"] for movement in consignment["movements"][:latest])]


async def test_concurrent_webhooks_lead_to_the_parcel_s_state(webhooks, courier, shipment, states):
    consignment = await courier.advance(shipment.shipment_id, "DELIVERED")
    versions = [as_of_version(consignment, version) for version in range(1, consignment["version"] + 1)] * 3
    random.Random(1).shuffle(versions)
    assert set(await asyncio.gather(*map(webhooks.send, versions))) == {OK}
    assert await states() == ["CREATED", "LABELLED", "PICKED_UP", "IN_TRANSIT", "OUT_FOR_DELIVERY", "DELIVERED"]


async def test_a_consignment_that_the_courier_cancels_is_cancelled(webhooks, courier, shipment, states):
    assert await webhooks.send(await courier.cancel(shipment.shipment_id)) is OK
    assert await states() == ["CREATED", "LABELLED", "CANCELLED"]


async def test_a_webhook_never_moves_a_shipment_back(webhooks, courier, update_status, shipment, states):
    for state in (pb.SHIPMENT_STATE_PICKED_UP, pb.SHIPMENT_STATE_IN_TRANSIT):
        await update_status(shipment, state)
    assert await webhooks.send(await courier.advance(shipment.shipment_id, "PICKED_UP")) is OK
    assert await states() == ["CREATED", "LABELLED", "PICKED_UP", "IN_TRANSIT"]
    assert await webhooks.send(await courier.advance(shipment.shipment_id, "OUT_FOR_DELIVERY")) is OK
    assert (await states())[-1] == "OUT_FOR_DELIVERY"


async def test_a_webhook_of_an_unknown_parcel_changes_nothing(webhooks, courier, shipment, states):
    consignment = await courier.advance(shipment.shipment_id)
    assert await webhooks.send(consignment | {"reference": "shipment-none"}) is OK
    assert await webhooks.send(consignment | {"id": "con_another"}) is OK
    assert await states() == ["CREATED", "LABELLED"]


async def test_a_webhook_without_a_valid_signature_is_rejected(webhooks, courier, shipment, states, rows):
    consignment = await courier.advance(shipment.shipment_id)
    body = orjson.dumps({"type": "consignment.status_changed", "data": consignment})
    now = int(time.time())
    headers = sign((SECRET,), "evt_1", now, body)
    forgeries = [
        (body.replace(b"PICKED_UP", b"DELIVERED"), headers),
        (body + b" ", headers),
        (body, headers | {"webhook-id": "evt_2"}),
        (body, headers | {"webhook-timestamp": str(now + 1)}),
        (body, headers | {"webhook-timestamp": "soon"}),
        (body, headers | {"webhook-signature": "v1,"}),
        (body, sign((OTHER_SECRET,), "evt_1", now, body)),
        (body, sign((SECRET,), "evt_1", now - 301, body)),
        (body, sign((SECRET,), "evt_1", now + 330, body)),
        (body, {}),
    ]
    for forged, with_headers in forgeries:
        assert await webhooks.post(forged, with_headers) is UNAUTHENTICATED
    assert await states() == ["CREATED", "LABELLED"]
    assert await rows.fetchval("SELECT count(*) FROM webhook") == 0


async def test_a_signed_webhook_with_another_body_is_malformed(webhooks):
    for body in (b"", b"[]", b'{"type": "consignment.status_changed", "data": {}}', b"\xff"):
        assert await webhooks.post(body, sign((SECRET,), "evt_1", int(time.time()), body)) is INVALID_ARGUMENT


async def test_during_a_rotation_both_secrets_are_accepted_and_afterwards_the_new_one(
    replica, courier, shipment, states
):
    consignment = await courier.advance(shipment.shipment_id)
    async with replica(courier_webhook_secret=f"{OTHER_SECRET},{SECRET}") as rotating:
        for secrets in ((SECRET,), (OTHER_SECRET,), (OTHER_SECRET, SECRET)):
            assert await CourierWebhooks(rotating.address).send(consignment, secrets=secrets) is OK
    async with replica(courier_webhook_secret=OTHER_SECRET) as after:
        assert await CourierWebhooks(after.address).send(consignment, secrets=(OTHER_SECRET,)) is OK
        assert await CourierWebhooks(after.address).send(consignment, secrets=(SECRET,)) is UNAUTHENTICATED


async def test_the_ids_of_webhooks_survive_the_move_to_the_table_of_the_chassis(fresh_database, tmp_path):
    package = tmp_path / "svc_delivery"
    (package / "migrations").mkdir(parents=True)
    scripts = sorted(Path(str(files("svc_delivery"))).glob("migrations/*.sql"))
    async with fresh_database("chassis") as url:
        for script in scripts:
            shutil.copy(script, package / "migrations")
            await migrate(url, package)
            if script.name.startswith("0001"):
                await execute(url, "INSERT INTO courier_event VALUES ('evt_1', '2026-01-01T00:00:00Z')")
        moved = await execute(url, "SELECT sender, webhook_id, receive_time FROM webhook")
    assert moved == [("courier", "evt_1", datetime(2026, 1, 1, tzinfo=UTC))]


async def execute(url, statement):
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(statement)
    finally:
        await connection.close()


async def test_webhook_ids_are_purged_after_their_retention(replica, rows):
    ages = {"evt_old": timedelta(days=31), "evt_young": timedelta(days=29)}
    for webhook_id, age in ages.items():
        await rows.execute("INSERT INTO webhook VALUES ('courier', $1, '', now() - $2::interval)", webhook_id, age)
    async with replica():
        await eventually(lambda: only_the_young_one(rows))


async def only_the_young_one(rows):
    return [row["webhook_id"] for row in await rows.fetch("SELECT webhook_id FROM webhook")] == ["evt_young"]
