"""The courier's webhooks: who is believed, and what late, double and wrong ones do: nothing."""

import asyncio
import random
import time
from datetime import timedelta

import grpc
import orjson
import pytest

from chassis.testing import eventually
from mesh.simulators.webhooks import sign
from shop.delivery.v1 import shipment_service_pb2 as pb
from tests.integration.svc_delivery.conftest import SECRET
from tests.integration.svc_delivery.parcels import CourierWebhooks, as_told_at

OTHER_SECRET = "whsec_dGhlLW5ldy1zZWNyZXQtdGhhdC1mb2xsb3dzLWFmdGVy"
OK, UNAUTHENTICATED, INVALID_ARGUMENT = (
    grpc.StatusCode.OK,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.INVALID_ARGUMENT,
)


@pytest.fixture
def orders_address(orders_app):
    return orders_app.address


@pytest.fixture
def news(app):
    return CourierWebhooks(app.address)


@pytest.fixture
async def shipment(ship):
    return await ship()


@pytest.fixture
def states(shipments, customer, shipment):
    """The states that the shipment has gone through: `await states()`."""

    async def states():
        with customer("user-1"):
            seen = await shipments.GetShipment(pb.GetShipmentRequest(shipment_id=shipment.shipment_id))
        return [pb.ShipmentState.Name(one.state).removeprefix("SHIPMENT_STATE_") for one in seen.updates]

    return states


async def test_the_news_of_a_move_moves_the_shipment(news, courier, shipment, states):
    assert await news.tell(await courier.advance(shipment.shipment_id)) is OK
    assert await states() == ["CREATED", "LABELLED", "PICKED_UP"]


async def test_news_that_comes_twice_counts_once(news, courier, shipment, states, rows):
    consignment = await courier.advance(shipment.shipment_id)
    answers = await asyncio.gather(*(news.tell(consignment, webhook_id="evt_1") for _ in range(8)))
    answers += [await news.tell(consignment, webhook_id="evt_1"), await news.tell(consignment, webhook_id="evt_2")]
    assert set(answers) == {OK}
    assert await states() == ["CREATED", "LABELLED", "PICKED_UP"]
    assert await rows.fetchval("SELECT count(*) FROM outbox") == 3
    assert await rows.fetchval("SELECT count(*) FROM webhook") == 2


@pytest.mark.parametrize("seed", range(4))
async def test_news_in_any_order_leads_where_the_parcel_is_and_never_back(news, courier, shipment, states, seed):
    for to in ("PICKED_UP", "FAILED", "IN_TRANSIT", "OUT_FOR_DELIVERY"):
        await courier.advance(shipment.shipment_id, to)
    consignment = await courier.advance(shipment.shipment_id, "DELIVERED")
    told = [as_told_at(consignment, version) for version in range(1, consignment["version"] + 1)]
    random.Random(seed).shuffle(told)
    latest = 0
    for one in told:
        assert await news.tell(one) is OK
        latest = max(latest, one["version"])
        assert await states() == ["CREATED", *(move["status"] for move in consignment["movements"][:latest])]


async def test_all_news_at_once_leads_where_the_parcel_is(news, courier, shipment, states):
    consignment = await courier.advance(shipment.shipment_id, "DELIVERED")
    told = [as_told_at(consignment, version) for version in range(1, consignment["version"] + 1)] * 3
    random.Random(1).shuffle(told)
    assert set(await asyncio.gather(*map(news.tell, told))) == {OK}
    assert await states() == ["CREATED", "LABELLED", "PICKED_UP", "IN_TRANSIT", "OUT_FOR_DELIVERY", "DELIVERED"]


async def test_a_parcel_that_the_courier_gives_up_comes_back(news, courier, shipment, states):
    assert await news.tell(await courier.cancel(shipment.shipment_id)) is OK
    assert await states() == ["CREATED", "LABELLED", "FAILED", "RETURNED"]


async def test_news_never_moves_a_shipment_back_that_staff_has_moved_on(news, courier, move, shipment, states):
    for state in (pb.SHIPMENT_STATE_PICKED_UP, pb.SHIPMENT_STATE_IN_TRANSIT):
        await move(shipment, state)
    assert await news.tell(await courier.advance(shipment.shipment_id, "PICKED_UP")) is OK
    assert await states() == ["CREATED", "LABELLED", "PICKED_UP", "IN_TRANSIT"]
    assert await news.tell(await courier.advance(shipment.shipment_id, "OUT_FOR_DELIVERY")) is OK
    assert (await states())[-1] == "OUT_FOR_DELIVERY"


async def test_news_of_parcels_that_are_not_ours_changes_nothing(news, courier, shipment, states):
    consignment = await courier.advance(shipment.shipment_id)
    assert await news.tell(consignment | {"reference": "shipment-none"}) is OK
    assert await news.tell(consignment | {"id": "con_another"}) is OK
    assert await states() == ["CREATED", "LABELLED"]


async def test_what_the_courier_did_not_sign_is_not_believed(news, courier, shipment, states, rows):
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
        assert await news.bring(forged, with_headers) is UNAUTHENTICATED
    assert await states() == ["CREATED", "LABELLED"]
    assert await rows.fetchval("SELECT count(*) FROM webhook") == 0


async def test_what_is_signed_but_no_news_is_malformed(news):
    for body in (b"", b"[]", b'{"type": "consignment.status_changed", "data": {}}', b"\xff"):
        assert await news.bring(body, sign((SECRET,), "evt_1", int(time.time()), body)) is INVALID_ARGUMENT


async def test_while_secrets_change_over_both_are_believed_and_afterwards_the_new_one(
    replica, courier, shipment, states
):
    consignment = await courier.advance(shipment.shipment_id)
    async with replica(courier_webhook_secret=f"{OTHER_SECRET},{SECRET}") as between:
        for secrets in ((SECRET,), (OTHER_SECRET,), (OTHER_SECRET, SECRET)):
            assert await CourierWebhooks(between.address).tell(consignment, secrets=secrets) is OK
    async with replica(courier_webhook_secret=OTHER_SECRET) as after:
        assert await CourierWebhooks(after.address).tell(consignment, secrets=(OTHER_SECRET,)) is OK
        assert await CourierWebhooks(after.address).tell(consignment, secrets=(SECRET,)) is UNAUTHENTICATED


async def test_news_is_forgotten_long_after_the_courier_has_stopped_to_tell_it(replica, rows):
    ages = {"evt_old": timedelta(days=31), "evt_young": timedelta(days=29)}
    for webhook_id, age in ages.items():
        await rows.execute("INSERT INTO webhook VALUES ('courier', $1, '', now() - $2::interval)", webhook_id, age)
    async with replica():
        await eventually(lambda: only_the_young_one(rows))


async def only_the_young_one(rows):
    return [row["webhook_id"] for row in await rows.fetch("SELECT webhook_id FROM webhook")] == ["evt_young"]
