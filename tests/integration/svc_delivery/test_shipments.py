"""Shipments: who makes them, who sees them, and who moves them on."""

import asyncio

import pytest

from shop.chassis.v1.chassis_errors import IdempotencyKeyReused, InvalidRequest, RoleMissing
from shop.delivery.v1 import delivery_events_pb2 as events
from shop.delivery.v1 import shipment_service_pb2 as pb
from shop.delivery.v1.delivery_errors import ShipmentNotFound, ShipmentStateConflict
from shop.order.v1.order_errors import OrderNotFound, OrderNotShippable
from svc_order.domain import State as OrderState
from svc_order.domain_saga import Step
from tests.integration.svc_delivery.conftest import ADDRESS

CREATED, LABELLED, PICKED_UP, IN_TRANSIT, OUT, DELIVERED, FAILED, RETURNED = range(1, 9)


@pytest.fixture
def orders_address(orders_app):
    return orders_app.address


async def test_shipping_an_order_hands_its_parcel_to_the_courier(ship, courier, order_id):
    shipment = await ship(slot_id="slot-1")
    assert (shipment.order_id, shipment.user_id, shipment.slot_id) == (order_id, "user-1", "slot-1")
    assert (shipment.shipping_address, shipment.weight_grams) == (ADDRESS, 1200)
    assert [update.state for update in shipment.updates] == [CREATED, LABELLED]
    assert (shipment.state, shipment.etag) == (LABELLED, "2")
    (consignment,) = await courier.consignments(shipment.shipment_id)
    assert consignment["tracking_number"] == shipment.tracking_number
    assert consignment["weight_grams"] == 1200


async def test_an_order_has_one_shipment_however_often_it_is_asked_for(ship, ask_to_ship, courier):
    shipment = await ship()
    assert await ask_to_ship() == shipment
    assert await ask_to_ship("another-key") == shipment
    assert len(await courier.consignments(shipment.shipment_id)) == 1


async def test_ten_who_ship_one_order_at_once_make_one_shipment(ship_order, ask_to_ship, order_id, courier, rows):
    await ship_order(order_id)
    answers = await asyncio.gather(*(ask_to_ship(f"k-{number}") for number in range(10)))
    assert len({answer.shipment_id for answer in answers}) == 1
    assert len(await courier.consignments(answers[0].shipment_id)) == 1
    told = await rows.fetch("SELECT type FROM outbox ORDER BY id")
    assert [row["type"].rpartition(".")[2] for row in told] == ["ShipmentCreated", "ShipmentStatusChanged"]


async def test_an_order_that_cannot_be_shipped_has_no_shipment_and_leaves_no_note(
    ask_to_ship, ship_order, order_id, rows
):
    with pytest.raises(OrderNotFound):
        await ask_to_ship()
    await ship_order(order_id, state=OrderState.PENDING, step=Step.AUTHORIZE_PAYMENT)
    with pytest.raises(OrderNotShippable):
        await ask_to_ship()
    assert await rows.fetchval("SELECT count(*) FROM dispatch") == 0
    assert await rows.fetchval("SELECT count(*) FROM shipment") == 0


async def test_a_refusal_is_not_held_against_a_later_try_with_the_same_key(ask_to_ship, ship, shipments, staff):
    with pytest.raises(OrderNotFound):
        await ask_to_ship()
    assert (await ship()).state == LABELLED
    with staff(), pytest.raises(IdempotencyKeyReused):
        await shipments.CreateShipment(pb.CreateShipmentRequest(order_id="order-2", request_id="ship"))


async def test_customers_and_couriers_do_not_ship(shipments, customer, order_id):
    request = pb.CreateShipmentRequest(order_id=order_id, request_id="k-1")
    for roles in ((), ("courier",)):
        with customer("user-1", *roles), pytest.raises(RoleMissing):
            await shipments.CreateShipment(request)


async def test_a_shipment_of_another_user_is_as_absent_as_none(ship, shipments, customer):
    shipment = await ship()
    for shipment_id in (shipment.shipment_id, "shipment-none"):
        with customer("user-2"), pytest.raises(ShipmentNotFound) as refusal:
            await shipments.GetShipment(pb.GetShipmentRequest(shipment_id=shipment_id))
        assert refusal.value.metadata == {"shipment_id": shipment_id}
        with customer("user-2"), pytest.raises(ShipmentNotFound):
            await anext(shipments.WatchShipment(pb.WatchShipmentRequest(shipment_id=shipment_id)))
    for user in (("user-1",), ("staff-2", "staff"), ("rider-1", "courier")):
        with customer(*user):
            seen = await shipments.GetShipment(pb.GetShipmentRequest(shipment_id=shipment.shipment_id))
        assert seen == shipment


async def test_a_customer_lists_their_own_and_staff_lists_all_newest_first(
    shipments, staff, customer, ship_order, order_id
):
    made = []
    for number in range(5):
        name = f"{order_id}-{number}"
        await ship_order(name, user_id=f"user-{number % 2}")
        with staff():
            made.append(await shipments.CreateShipment(pb.CreateShipmentRequest(order_id=name, request_id=name)))

    async def listed(**wanted):
        return list((await shipments.ListShipments(pb.ListShipmentsRequest(**wanted))).shipments)

    with customer("user-0"):
        assert await listed() == [made[4], made[2], made[0]]
        assert await listed(order_id=made[1].order_id) == []
    with customer("user-9"):
        assert await listed() == []
    with staff():
        assert await listed(order_id=made[1].order_id) == [made[1]]
        assert await listed(state=pb.SHIPMENT_STATE_DELIVERED) == []
        first = await shipments.ListShipments(pb.ListShipmentsRequest(page_size=3))
        rest = await shipments.ListShipments(pb.ListShipmentsRequest(page_size=3, page_token=first.next_page_token))
    assert [*first.shipments, *rest.shipments] == made[::-1]
    assert rest.next_page_token == ""


async def test_staff_and_couriers_move_a_shipment_to_its_end(ship, move, shipments, customer):
    shipment = await ship()
    for state in (PICKED_UP, IN_TRANSIT, OUT):
        assert (await move(shipment, state, note=f"note {state}")).state == state
    request = pb.UpdateShipmentStatusRequest(
        shipment_id=shipment.shipment_id, state=DELIVERED, note="by the door", request_id="k-1"
    )
    with customer("user-1"), pytest.raises(RoleMissing):
        await shipments.UpdateShipmentStatus(request)
    with customer("rider-1", "courier"):
        delivered = await shipments.UpdateShipmentStatus(request)
    assert [update.state for update in delivered.updates] == [1, 2, 3, 4, 5, 6]
    assert [update.note for update in delivered.updates] == ["", "", "note 3", "note 4", "note 5", "by the door"]
    assert (delivered.etag, delivered.tracking_number) == ("6", shipment.tracking_number)


async def test_a_move_that_its_state_does_not_allow_is_refused_and_one_to_where_it_is_does_nothing(ship, move, rows):
    shipment = await ship()
    for state in (CREATED, IN_TRANSIT, DELIVERED, RETURNED):
        with pytest.raises(ShipmentStateConflict):
            await move(shipment, state)
    assert await move(shipment, LABELLED) == shipment
    assert await rows.fetchval("SELECT count(*) FROM outbox") == 2


async def test_a_move_repeated_by_its_key_is_made_once(ship, move):
    shipment = await ship()
    first = await move(shipment, PICKED_UP, request_id="k-1")
    await move(shipment, IN_TRANSIT)
    assert await move(shipment, PICKED_UP, request_id="k-1") == first
    with pytest.raises(IdempotencyKeyReused):
        await move(shipment, OUT, request_id="k-1")


async def test_a_move_of_nothing_or_to_nothing_is_refused(ship, move, counter, staff):
    shipment = await ship()
    with pytest.raises(ShipmentNotFound):
        await move(pb.Shipment(shipment_id="shipment-none"), PICKED_UP)
    for state in (0, 99):
        with pytest.raises(InvalidRequest):
            await move(shipment, state)
    with pytest.raises(InvalidRequest) as refusal:
        await move(shipment, PICKED_UP, note="a\nb")
    assert refusal.value.metadata["field"] == "note"


async def test_of_many_who_move_a_shipment_at_once_each_move_is_made_once(ship, shipments, staff, rows):
    shipment = await ship()
    requests = [
        pb.UpdateShipmentStatusRequest(shipment_id=shipment.shipment_id, state=state, request_id=f"k-{state}-{number}")
        for number in range(6)
        for state in (PICKED_UP, FAILED)
    ]
    with staff():
        await asyncio.gather(*map(shipments.UpdateShipmentStatus, requests), return_exceptions=True)
    moves = await rows.fetch("SELECT version, state FROM shipment_update ORDER BY version")
    states = [row["state"] for row in moves]
    assert [row["version"] for row in moves] == list(range(1, len(moves) + 1))
    assert states in (
        ["CREATED", "LABELLED", "PICKED_UP", "FAILED"],
        ["CREATED", "LABELLED", "FAILED"],
    )
    assert await rows.fetchval("SELECT count(*) FROM outbox") == len(moves)


async def test_watching_tells_the_present_then_every_change_and_ends_with_the_parcel(ship, move, shipments, customer):
    shipment = await ship()
    with customer("user-1"):
        watch = shipments.WatchShipment(pb.WatchShipmentRequest(shipment_id=shipment.shipment_id))
        async with asyncio.timeout(60):
            first = await anext(watch)
            assert first.shipment == shipment
            await move(shipment, FAILED)
            assert (await anext(watch)).shipment.state == FAILED
            await move(shipment, RETURNED)
            last = await anext(watch)
            assert last.shipment.state == RETURNED
            assert [one async for one in watch] == []
    with customer("user-1"):
        resumed = shipments.WatchShipment(
            pb.WatchShipmentRequest(shipment_id=shipment.shipment_id, resume_token=first.resume_token)
        )
        ended = shipments.WatchShipment(
            pb.WatchShipmentRequest(shipment_id=shipment.shipment_id, resume_token=last.resume_token)
        )
        async with asyncio.timeout(60):
            assert [one async for one in resumed] == [last]
            assert [one async for one in ended] == []


async def test_every_version_of_a_shipment_is_told_and_no_event_knows_where_it_goes(ship, move, order_id, rows):
    shipment = await ship(slot_id="slot-1")
    await move(shipment, PICKED_UP)
    told = await rows.fetch("SELECT type, key, payload FROM outbox ORDER BY id")
    created, *moves = told
    assert events.ShipmentCreated.FromString(created["payload"]) == events.ShipmentCreated(
        shipment_id=shipment.shipment_id, version=1, order_id=order_id, user_id="user-1", slot_id="slot-1"
    )
    assert [events.ShipmentStatusChanged.FromString(row["payload"]) for row in moves] == [
        events.ShipmentStatusChanged(
            shipment_id=shipment.shipment_id,
            version=after,
            order_id=order_id,
            user_id="user-1",
            from_state=after - 1,
            to_state=after,
        )
        for after in (LABELLED, PICKED_UP)
    ]
    assert {row["key"] for row in told} == {shipment.shipment_id}
    assert not any(b"Silom" in row["payload"] or b"Somchai" in row["payload"] for row in told)


async def test_the_history_says_who_moved_a_shipment(ship, move, rows):
    await move(await ship(), PICKED_UP)
    actors = await rows.fetch("SELECT actor FROM shipment_update ORDER BY version")
    assert [row["actor"] for row in actors] == ["staff-1", "courier", "staff-1"]
