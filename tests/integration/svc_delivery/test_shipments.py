"""Shipments: who may create, see and update them, and what is published."""

import asyncio

import pytest

from shop.chassis.v1.chassis_errors import CallerDenied, IdempotencyKeyReused, InvalidRequest, RoleMissing
from shop.delivery.v1 import delivery_events_pb2 as events
from shop.delivery.v1 import shipment_service_pb2 as pb
from shop.delivery.v1.delivery_errors import ShipmentIdTaken, ShipmentNotFound, ShipmentStateConflict
from tests.integration.svc_delivery.conftest import ADDRESS, shipment_request

CREATED, LABELLED, PICKED_UP, IN_TRANSIT, OUT, DELIVERED, FAILED, RETURNED = range(1, 9)


async def test_shipping_an_order_submits_its_parcel_to_the_courier(ship, courier, order_id):
    shipment = await ship(slot_id="slot-1")
    assert (shipment.order_id, shipment.user_id, shipment.slot_id) == (order_id, "user-1", "slot-1")
    assert (shipment.shipping_address, shipment.weight_grams) == (ADDRESS, 1200)
    assert [update.state for update in shipment.updates] == [CREATED, LABELLED]
    assert (shipment.state, shipment.etag) == (LABELLED, "2")
    (consignment,) = await courier.consignments(shipment.shipment_id)
    assert consignment["tracking_number"] == shipment.tracking_number
    assert consignment["weight_grams"] == 1200


async def test_an_order_has_one_shipment_however_often_it_is_requested(ship, courier):
    shipment = await ship()
    assert await ship() == shipment
    assert len(await courier.consignments(shipment.shipment_id)) == 1


async def test_ten_concurrent_requests_create_one_shipment(ship, courier, rows):
    answers = await asyncio.gather(*(ship() for _ in range(10)))
    assert len({answer.shipment_id for answer in answers}) == 1
    assert len(await courier.consignments(answers[0].shipment_id)) == 1
    published = await rows.fetch("SELECT type FROM outbox ORDER BY id")
    assert [row["type"].rpartition(".")[2] for row in published] == ["ShipmentCreated", "ShipmentStatusChanged"]


async def test_an_order_has_no_second_shipment_and_an_id_no_second_order(ship, shipment_client, order_id, rows):
    shipment = await ship()
    for fields in ({"shipment_id": "shipment-2"}, {"order_id": "order-2"}):
        request = shipment_request(order_id)
        request.MergeFrom(pb.CreateShipmentRequest(**fields))
        with pytest.raises(ShipmentIdTaken):
            await shipment_client.CreateShipment(request)
    assert await rows.fetchval("SELECT count(*) FROM shipment") == 1
    assert await ship() == shipment


async def test_no_user_creates_a_shipment_past_svc_order(shipments, staff, order_id):
    with staff(), pytest.raises(CallerDenied):
        await shipments.CreateShipment(shipment_request(order_id))


async def test_a_shipment_of_another_user_is_not_found(ship, shipments, customer):
    shipment = await ship()
    for shipment_id in (shipment.shipment_id, "shipment-none"):
        with customer("user-2"), pytest.raises(ShipmentNotFound) as error:
            await shipments.GetShipment(pb.GetShipmentRequest(shipment_id=shipment_id))
        assert error.value.metadata == {"shipment_id": shipment_id}
        with customer("user-2"), pytest.raises(ShipmentNotFound):
            await anext(shipments.WatchShipment(pb.WatchShipmentRequest(shipment_id=shipment_id)))
    for user in (("user-1",), ("staff-2", "staff")):
        with customer(*user):
            seen = await shipments.GetShipment(pb.GetShipmentRequest(shipment_id=shipment.shipment_id))
        assert seen == shipment


@pytest.fixture
def assign(shipments, staff):
    """Assign a shipment to a courier as staff: `await assign(shipment, "rider-1")`."""

    async def assign(shipment, courier_id):
        request = pb.AssignShipmentRequest(
            shipment_id=shipment.shipment_id, courier_id=courier_id, request_id=f"a-{shipment.shipment_id}-{courier_id}"
        )
        with staff():
            return await shipments.AssignShipment(request)

    return assign


async def test_a_courier_sees_and_updates_only_shipments_that_are_assigned_to_them(
    ship, assign, shipments, customer, order_id
):
    mine, other = await ship(f"{order_id}-1"), await ship(f"{order_id}-2")
    await assign(other, "rider-2")
    assert (await assign(mine, "rider-1")).courier_id == "rider-1"

    async def get(shipment):
        return await shipments.GetShipment(pb.GetShipmentRequest(shipment_id=shipment.shipment_id))

    async def pick_up(shipment):
        request = pb.UpdateShipmentStatusRequest(
            shipment_id=shipment.shipment_id, state=PICKED_UP, request_id=f"k-{shipment.shipment_id}"
        )
        return await shipments.UpdateShipmentStatus(request)

    with customer("rider-1", "courier"):
        assert (await get(mine)).courier_id == "rider-1"
        listed = await shipments.ListShipments(pb.ListShipmentsRequest())
        assert [one.shipment_id for one in listed.shipments] == [mine.shipment_id]
        assert (await pick_up(mine)).state == PICKED_UP
        watch = shipments.WatchShipment(pb.WatchShipmentRequest(shipment_id=mine.shipment_id))
        assert (await anext(watch)).shipment.state == PICKED_UP
        for refused in (get(other), pick_up(other)):
            with pytest.raises(ShipmentNotFound):
                await refused
        with pytest.raises(ShipmentNotFound):
            await anext(shipments.WatchShipment(pb.WatchShipmentRequest(shipment_id=other.shipment_id)))
        with pytest.raises(RoleMissing):
            await shipments.AssignShipment(
                pb.AssignShipmentRequest(shipment_id=other.shipment_id, courier_id="rider-1", request_id="k")
            )
    await assign(mine, "")
    with customer("rider-1", "courier"), pytest.raises(ShipmentNotFound):
        await get(mine)


async def test_a_customer_lists_their_own_and_staff_lists_all_newest_first(ship, shipments, staff, customer, order_id):
    created = [await ship(f"{order_id}-{number}", user_id=f"user-{number % 2}") for number in range(5)]

    async def listed(**filters):
        return list((await shipments.ListShipments(pb.ListShipmentsRequest(**filters))).shipments)

    with customer("user-0"):
        assert await listed() == [created[4], created[2], created[0]]
        assert await listed(order_id=created[1].order_id) == []
    with customer("user-9"):
        assert await listed() == []
    with staff():
        assert await listed(order_id=created[1].order_id) == [created[1]]
        assert await listed(state=pb.SHIPMENT_STATE_DELIVERED) == []
        first = await shipments.ListShipments(pb.ListShipmentsRequest(page_size=3))
        rest = await shipments.ListShipments(pb.ListShipmentsRequest(page_size=3, page_token=first.next_page_token))
    assert [*first.shipments, *rest.shipments] == created[::-1]
    assert rest.next_page_token == ""


async def test_staff_and_couriers_update_the_status_to_the_end(ship, update_status, assign, shipments, customer):
    shipment = await ship()
    for state in (PICKED_UP, IN_TRANSIT, OUT):
        assert (await update_status(shipment, state, note=f"note {state}")).state == state
    request = pb.UpdateShipmentStatusRequest(
        shipment_id=shipment.shipment_id, state=DELIVERED, note="by the door", request_id="k-1"
    )
    with customer("user-1"), pytest.raises(RoleMissing):
        await shipments.UpdateShipmentStatus(request)
    await assign(shipment, "rider-1")
    with customer("rider-1", "courier"):
        delivered = await shipments.UpdateShipmentStatus(request)
    assert [update.state for update in delivered.updates] == [1, 2, 3, 4, 5, 6]
    assert [update.note for update in delivered.updates] == ["", "", "note 3", "note 4", "note 5", "by the door"]
    assert (delivered.etag, delivered.tracking_number) == ("6", shipment.tracking_number)


async def test_an_illegal_transition_fails_and_one_to_the_same_state_changes_nothing(ship, update_status, rows):
    shipment = await ship()
    for state in (CREATED, IN_TRANSIT, DELIVERED, RETURNED):
        with pytest.raises(ShipmentStateConflict):
            await update_status(shipment, state)
    assert await update_status(shipment, LABELLED) == shipment
    assert await rows.fetchval("SELECT count(*) FROM outbox") == 2


async def test_a_status_update_repeated_with_its_key_is_made_once(ship, update_status):
    shipment = await ship()
    first = await update_status(shipment, PICKED_UP, request_id="k-1")
    await update_status(shipment, IN_TRANSIT)
    assert await update_status(shipment, PICKED_UP, request_id="k-1") == first
    with pytest.raises(IdempotencyKeyReused):
        await update_status(shipment, OUT, request_id="k-1")


async def test_an_update_of_an_unknown_shipment_or_to_no_state_fails(ship, update_status):
    shipment = await ship()
    with pytest.raises(ShipmentNotFound):
        await update_status(pb.Shipment(shipment_id="shipment-none"), PICKED_UP)
    for state in (0, 99):
        with pytest.raises(InvalidRequest):
            await update_status(shipment, state)
    with pytest.raises(InvalidRequest) as error:
        await update_status(shipment, PICKED_UP, note="a\nb")
    assert error.value.metadata["field"] == "note"


async def test_concurrent_status_updates_make_each_transition_once(ship, shipments, staff, rows):
    shipment = await ship()
    requests = [
        pb.UpdateShipmentStatusRequest(shipment_id=shipment.shipment_id, state=state, request_id=f"k-{state}-{number}")
        for number in range(6)
        for state in (PICKED_UP, FAILED)
    ]
    with staff():
        await asyncio.gather(*map(shipments.UpdateShipmentStatus, requests), return_exceptions=True)
    history = await rows.fetch("SELECT version, state FROM shipment_update ORDER BY version")
    states = [row["state"] for row in history]
    assert [row["version"] for row in history] == list(range(1, len(history) + 1))
    assert states in (
        ["CREATED", "LABELLED", "PICKED_UP", "FAILED"],
        ["CREATED", "LABELLED", "FAILED"],
    )
    assert await rows.fetchval("SELECT count(*) FROM outbox") == len(history)


async def test_a_watch_sends_the_state_then_each_change_and_ends_at_a_final_state(
    ship, update_status, shipments, customer
):
    shipment = await ship()
    with customer("user-1"):
        watch = shipments.WatchShipment(pb.WatchShipmentRequest(shipment_id=shipment.shipment_id))
        async with asyncio.timeout(60):
            first = await anext(watch)
            assert first.shipment == shipment
            await update_status(shipment, FAILED)
            assert (await anext(watch)).shipment.state == FAILED
            await update_status(shipment, RETURNED)
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


async def test_every_version_is_published_and_no_event_has_the_address(ship, update_status, order_id, rows):
    shipment = await ship(slot_id="slot-1")
    await update_status(shipment, PICKED_UP)
    published = await rows.fetch("SELECT type, key, payload FROM outbox ORDER BY id")
    created, *changes = published
    assert events.ShipmentCreated.FromString(created["payload"]) == events.ShipmentCreated(
        shipment_id=shipment.shipment_id, version=1, order_id=order_id, user_id="user-1", slot_id="slot-1"
    )
    assert [events.ShipmentStatusChanged.FromString(row["payload"]) for row in changes] == [
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
    assert {row["key"] for row in published} == {shipment.shipment_id}
    assert not any(b"Silom" in row["payload"] or b"Somchai" in row["payload"] for row in published)


async def test_the_history_has_the_actor_of_each_transition(ship, update_status, rows):
    await update_status(await ship(), PICKED_UP)
    actors = await rows.fetch("SELECT actor FROM shipment_update ORDER BY version")
    assert [row["actor"] for row in actors] == ["staff-1", "courier", "staff-1"]
