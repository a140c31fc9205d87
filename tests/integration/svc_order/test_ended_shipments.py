"""Shipments that end before their parcel departs: the order can be shipped again, or cancelled."""

import pytest

from chassis.testing import eventually
from shop.delivery.v1 import delivery_service_pb2 as delivery_pb
from shop.delivery.v1 import shipment_service_pb2 as shipment_pb
from shop.order.v1 import order_service_pb2 as pb
from shop.order.v1.order_errors import OrderNotCancellable
from shop.payment.v1 import payment_service_pb2 as payment_pb
from shop.type.v1.address_pb2 import Address
from tests.integration.svc_order.shop import ADDRESS, buy
from tests.integration.svc_order.shop_queries import available, get, move, payment_of, reached, ship

FAILED, CANCELLED = shipment_pb.SHIPMENT_STATE_FAILED, shipment_pb.SHIPMENT_STATE_CANCELLED
LABELLED, PICKED_UP = shipment_pb.SHIPMENT_STATE_LABELLED, shipment_pb.SHIPMENT_STATE_PICKED_UP


async def without_shipment(shop, order_id):
    return await eventually(lambda: get(shop, order_id), lambda order: not order.shipment_id)


async def create_zone(shop, **changes):
    with shop.staff():
        (zone,) = (await shop.delivery.ListZones(delivery_pb.ListZonesRequest())).zones
        del zone.postal_prefixes[:]
        zone.MergeFrom(delivery_pb.Zone(**changes))
        await shop.delivery.CreateZone(delivery_pb.CreateZoneRequest(zone=zone, request_id="z-2"))


@pytest.mark.parametrize("end", [FAILED, CANCELLED])
async def test_an_order_whose_shipment_ends_before_it_departs_is_shipped_again(shop, end):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
        first = await ship(shop, order.order_id)
        with pytest.raises(OrderNotCancellable):
            await shop.orders.CancelOrder(pb.CancelOrderRequest(order_id=order.order_id, request_id="c-1"))
        await move(shop, first, end)
        waiting = await without_shipment(shop, order.order_id)
    assert (waiting.state, waiting.payment_state) == (pb.ORDER_STATE_CONFIRMED, pb.ORDER_PAYMENT_STATE_AUTHORIZED)
    second = await ship(shop, order.order_id, "again")
    assert (second.shipment_id, second.state) == (f"{first.shipment_id}-2", LABELLED)
    await move(shop, second, PICKED_UP)
    with shop.customer():
        assert (await reached(shop, order.order_id, pb.ORDER_STATE_SHIPPED)).shipment_id == second.shipment_id


async def test_an_order_whose_shipment_the_courier_rejects_can_be_cancelled(shop):
    await create_zone(shop, zone_id="unserved", postal_prefixes=["00"])
    address = Address()
    address.CopyFrom(ADDRESS)
    address.postal_code = "00000"
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1), shipping_address=address))
        shipment = await ship(shop, order.order_id)
        await without_shipment(shop, order.order_id)
        await shop.orders.CancelOrder(pb.CancelOrderRequest(order_id=order.order_id, request_id="c-1"))
        await reached(shop, order.order_id, pb.ORDER_STATE_CANCELLED)
        assert (await payment_of(shop, order)).state == payment_pb.PAYMENT_STATE_VOIDED
        found = await shop.shipments.GetShipment(shipment_pb.GetShipmentRequest(shipment_id=shipment.shipment_id))
    assert [one.state for one in found.updates][-2:] == [FAILED, CANCELLED]
    assert await available(shop, "shirt") == 10


async def test_a_process_that_dies_before_it_cancels_a_failed_shipment_leaves_that_to_the_next_one(shop, rows):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
        shipment = await ship(shop, order.order_id)
        # As the process left it that died in the step that cancels the shipment.
        await rows.execute("UPDATE saga SET step = 'create_shipment', attempts = 1, next_attempt_time = 'infinity'")
        await move(shop, shipment, FAILED)
        await without_shipment(shop, order.order_id)
        assert await rows.fetchval("SELECT step FROM saga") == "await_shipment"


async def test_a_parcel_that_is_not_picked_up_in_time_gives_the_order_back_with_a_deadline(shop, rows):
    waits = "SELECT extract(days FROM next_attempt_time - now())::int FROM saga WHERE step = $1"
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
        assert await rows.fetchval(waits, "await_shipment") == 59
        first = await ship(shop, order.order_id)
        assert await eventually(lambda: rows.fetchval(waits, "await_pickup"), bool) == 13
        await rows.execute("UPDATE saga SET next_attempt_time = now() WHERE NOT executing")
        waiting = await without_shipment(shop, order.order_id)
    assert waiting.state == pb.ORDER_STATE_CONFIRMED
    assert await rows.fetchval(waits, "await_shipment") == 59
    with shop.staff():
        found = await shop.shipments.GetShipment(shipment_pb.GetShipmentRequest(shipment_id=first.shipment_id))
    assert found.state == CANCELLED
    second = await ship(shop, order.order_id, "again")
    await move(shop, second, PICKED_UP)
    with shop.customer():
        await reached(shop, order.order_id, pb.ORDER_STATE_SHIPPED)
