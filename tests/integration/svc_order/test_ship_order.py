"""ShipOrder: a saga step has the shipment created in svc_delivery, whichever process dies in between."""

import asyncio

import asyncpg
import pytest

from chassis.testing import eventually
from shop.chassis.v1.chassis_errors import IdempotencyKeyReused, RoleMissing
from shop.delivery.v1 import shipment_service_pb2 as shipment_pb
from shop.order.v1 import order_service_pb2 as pb
from shop.order.v1 import saga_pb2
from shop.order.v1.order_errors import OrderNotFound, OrderNotShippable
from tests.integration.svc_order.shop import ADDRESS, buy, upstreams
from tests.integration.svc_order.shop_queries import move, paying, reached, saga_of, ship, timeline

DONE = saga_pb2.SAGA_STEP_STATE_DONE


@pytest.fixture
async def shipment_rows(shop):
    """A connection to the database of svc_delivery."""
    connection = await asyncpg.connect(shop.databases["svc_delivery"])
    yield connection
    await connection.close()


@pytest.fixture
async def order(shop):
    """A confirmed order."""
    with shop.customer():
        return await shop.orders.CreateOrder(buy(("shirt", 2), ("coat", 1)))


async def test_shipping_an_order_creates_its_shipment_and_submits_it_to_the_courier(shop, order, rows):
    shipment = await ship(shop, order.order_id)
    assert (shipment.order_id, shipment.user_id, shipment.slot_id) == (order.order_id, "customer-1", "")
    assert (shipment.shipping_address, shipment.weight_grams) == (ADDRESS, 1500)
    assert shipment.state == shipment_pb.SHIPMENT_STATE_LABELLED
    with shop.customer():
        assert await shop.shipments.GetShipment(shipment_pb.GetShipmentRequest(shipment_id=shipment.shipment_id))
        steps = await timeline(shop, order.order_id)
    assert steps == dict.fromkeys(
        ["reserve_stock", "book_slot", "authorize_payment", "confirm_reservation", "create_shipment"], DONE
    )
    assert await rows.fetchval("SELECT step FROM saga") == "await_pickup"


async def test_the_history_of_a_shipment_has_the_member_of_staff_who_requested_it(shop, order, shipment_rows):
    await ship(shop, order.order_id)
    actors = await shipment_rows.fetch("SELECT actor FROM shipment_update ORDER BY version")
    assert [row["actor"] for row in actors] == ["staff-1", "courier"]


async def test_an_order_has_one_shipment_however_often_it_is_shipped(shop, order, shipment_rows):
    shipments = await asyncio.gather(*(ship(shop, order.order_id, f"k-{number}") for number in range(10)))
    assert len({shipment.shipment_id for shipment in shipments}) == 1
    assert await ship(shop, order.order_id, "k-0") == await ship(shop, order.order_id, "k-another")
    published = await shipment_rows.fetch("SELECT type FROM outbox ORDER BY id")
    assert [row["type"].rpartition(".")[2] for row in published] == ["ShipmentCreated", "ShipmentStatusChanged"]


async def test_a_key_whose_request_failed_can_be_used_again_and_for_no_other_order(shop, order, rows, shipment_rows):
    with pytest.raises(OrderNotFound):
        await ship(shop, "order-none", "k-1")
    with shop.customer():
        async with paying(shop, rows, buy(("shirt", 1), token="tok_slow_3000")) as (order_id, placing):
            with pytest.raises(OrderNotShippable):
                await ship(shop, order_id, "k-1")
            assert await shipment_rows.fetchval("SELECT count(*) FROM shipment") == 0
            await placing
    assert (await ship(shop, order_id, "k-1")).order_id == order_id
    with pytest.raises(IdempotencyKeyReused):
        await ship(shop, order.order_id, "k-1")


async def test_customers_and_couriers_ship_nothing(shop, order):
    request = pb.ShipOrderRequest(order_id=order.order_id, request_id="k-1")
    for roles in ((), ("courier",)):
        with shop.customer("customer-1", *roles), pytest.raises(RoleMissing):
            await shop.orders.ShipOrder(request)


async def test_an_order_is_shipped_when_svc_delivery_is_available_again(shop, order, another, free_port):
    nowhere = upstreams(shop.addresses, svc_delivery=f"127.0.0.1:{free_port()}")
    async with another(upstreams=nowhere, saga_poll_seconds=3600.0) as orders:
        shipment = await ship(shop, order.order_id, orders=orders)
    assert (shipment.state, shipment.weight_grams) == (shipment_pb.SHIPMENT_STATE_CREATED, 1500)
    await eventually(lambda: shipment_state(shop, shipment), lambda state: state == "LABELLED")
    assert (await ship(shop, order.order_id)).shipment_id == shipment.shipment_id


async def shipment_state(shop, shipment):
    connection = await asyncpg.connect(shop.databases["svc_delivery"])
    try:
        return await connection.fetchval("SELECT state FROM shipment WHERE shipment_id = $1", shipment.shipment_id)
    finally:
        await connection.close()


async def test_a_step_whose_reply_was_lost_with_its_process_is_repeated_and_creates_nothing_twice(
    shop, order, rows, shipment_rows
):
    shipment = await ship(shop, order.order_id)
    # As the process left it that died between svc_delivery's commit and its own.
    await rows.execute("UPDATE saga SET step = 'create_shipment', attempts = 1, next_attempt_time = now()")
    await eventually(lambda: rows.fetchval("SELECT step FROM saga"), lambda step: step == "await_pickup")
    assert await rows.fetchval("SELECT attempts FROM saga_step WHERE name = 'create_shipment'") == 2
    assert [row["shipment_id"] for row in await shipment_rows.fetch("SELECT shipment_id FROM shipment")] == [
        shipment.shipment_id
    ]


async def test_a_parcel_that_departs_before_the_step_is_settled_settles_it(shop, order, rows):
    shipment = await ship(shop, order.order_id)
    # As if the process that executes the step had not settled it yet.
    await rows.execute("UPDATE saga SET step = 'create_shipment', attempts = 1, next_attempt_time = 'infinity'")
    await rows.execute("UPDATE saga_step SET state = 'RUNNING', end_time = NULL WHERE name = 'create_shipment'")
    await move(shop, shipment, shipment_pb.SHIPMENT_STATE_PICKED_UP)
    with shop.customer():
        await reached(shop, order.order_id, pb.ORDER_STATE_SHIPPED)
    saga = await eventually(lambda: saga_of(shop, order.order_id), lambda saga: saga.state == saga_pb2.SAGA_STATE_DONE)
    assert {step.name: step.state for step in saga.steps}["create_shipment"] == DONE


async def test_a_saga_without_this_step_goes_on_when_its_parcel_departs(shop, order, rows):
    shipment = await ship(shop, order.order_id)
    await rows.execute("UPDATE saga SET step = 'await_shipment'")
    await rows.execute("DELETE FROM saga_step WHERE name = 'create_shipment'")
    await move(shop, shipment, shipment_pb.SHIPMENT_STATE_PICKED_UP)
    await eventually(lambda: rows.fetchval("SELECT state FROM saga"), lambda state: state == "DONE")
