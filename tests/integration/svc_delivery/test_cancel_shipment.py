"""The cancellation of shipments: the courier is notified until it has confirmed, whatever fails in between."""

import asyncio

import pytest

from chassis.testing import eventually
from shop.chassis.v1.chassis_errors import CallerDenied
from shop.delivery.v1 import shipment_service_pb2 as pb
from shop.delivery.v1.delivery_errors import ShipmentIdTaken, ShipmentNotFound, ShipmentStateConflict
from tests.integration.svc_delivery.conftest import shipment_request
from tests.integration.svc_delivery.courier_webhooks import CourierWebhooks

CREATED, LABELLED, PICKED_UP = range(1, 4)
DELIVERED, FAILED, RETURNED, CANCELLED = range(6, 10)


@pytest.fixture
def cancel(shipment_client):
    """Cancel a shipment as svc_order does: `await cancel(shipment)`."""

    async def cancel(shipment):
        request = pb.CancelShipmentRequest(shipment_id=shipment.shipment_id, actor="staff-1", reason="out of stock")
        return await shipment_client.CancelShipment(request)

    return cancel


async def is_cancelled(rows):
    """Wait until the only shipment is cancelled."""
    await eventually(lambda: rows.fetchval("SELECT state FROM shipment"), lambda state: state == "CANCELLED")


async def expire_leases(rows):
    await rows.execute("UPDATE dispatch SET next_attempt_time = now() - interval '1 second'")


async def test_a_cancelled_shipment_is_cancelled_at_the_courier(ship, cancel, courier, rows):
    shipment = await ship()
    cancelled = await cancel(shipment)
    assert [update.state for update in cancelled.updates] == [CREATED, LABELLED, CANCELLED]
    assert cancelled.updates[-1].note == "out of stock"
    (consignment,) = await courier.consignments(shipment.shipment_id)
    assert consignment["status"] == "CANCELLED"
    assert await cancel(shipment) == cancelled
    actors = await rows.fetch("SELECT actor FROM shipment_update ORDER BY version")
    assert [row["actor"] for row in actors] == ["staff-1", "courier", "staff-1"]
    assert await rows.fetchval("SELECT count(*) FROM outbox") == 3
    assert await rows.fetchval("SELECT count(*) FROM dispatch") == 0


@pytest.mark.parametrize("state", [PICKED_UP, DELIVERED, FAILED])
async def test_a_shipment_is_cancelled_until_it_is_picked_up(ship, cancel, update_status, courier, state):
    shipment = await ship()
    for step in range(PICKED_UP, state + 1) if state is not FAILED else (FAILED,):
        await update_status(shipment, step)
    if state is FAILED:
        assert (await cancel(shipment)).state == CANCELLED
        assert (await courier.consignments(shipment.shipment_id))[0]["status"] == "CANCELLED"
    else:
        with pytest.raises(ShipmentStateConflict):
            await cancel(shipment)
        assert (await courier.consignments(shipment.shipment_id))[0]["status"] == "LABELLED"


async def test_a_parcel_that_failed_on_its_way_is_not_cancelled(ship, cancel, update_status):
    shipment = await ship()
    for state in (PICKED_UP, FAILED):
        await update_status(shipment, state)
    with pytest.raises(ShipmentStateConflict):
        await cancel(shipment)
    with pytest.raises(ShipmentStateConflict):
        await update_status(shipment, CANCELLED)


async def test_a_parcel_that_the_courier_has_picked_up_meanwhile_is_not_cancelled(ship, cancel, courier, rows):
    shipment = await ship()
    await courier.advance(shipment.shipment_id, "PICKED_UP")  # its webhook has not arrived yet
    assert (await cancel(shipment)).state == PICKED_UP
    with pytest.raises(ShipmentStateConflict):
        await cancel(shipment)
    assert await rows.fetchval("SELECT count(*) FROM dispatch") == 0


@pytest.mark.parametrize("fault", ["cancel_500", "cancel_500_then_done"])
async def test_a_courier_that_does_not_answer_is_asked_again(ship, cancel, courier, rows, fault):
    shipment = await ship()
    await courier.inject_faults(next=[fault])
    assert (await cancel(shipment)).state == LABELLED
    await expire_leases(rows)
    await is_cancelled(rows)
    assert (await courier.consignments(shipment.shipment_id))[0]["status"] == "CANCELLED"


async def test_a_process_that_dies_leaves_the_cancellation_to_the_next_one(ship, cancel, courier, rows):
    shipment = await ship()
    await rows.execute("UPDATE shipment SET cancel_actor = 'staff-1', cancel_reason = 'why'")
    await rows.execute("INSERT INTO dispatch VALUES ($1, 1, now() - interval '1 second', true, '')", shipment.order_id)
    await is_cancelled(rows)
    assert (await courier.consignments(shipment.shipment_id))[0]["status"] == "CANCELLED"


@pytest.mark.parametrize("fault", ["create_500", "create_500_then_done"])
async def test_a_shipment_whose_submission_has_no_answer_leaves_no_parcel_at_the_courier(
    ship, cancel, courier, rows, fault
):
    await courier.inject_faults(next=[fault])
    shipment = await ship()
    assert shipment.state == CREATED
    await rows.execute("UPDATE dispatch SET next_attempt_time = now() + interval '1 hour'")
    assert (await cancel(shipment)).state == CANCELLED
    # A late submission would find this consignment, and create none.
    assert [one["status"] for one in await courier.consignments(shipment.shipment_id)] == ["CANCELLED"]


async def test_a_shipment_that_the_courier_rejected_is_cancelled(ship, cancel, courier):
    shipment = await ship(postal_code="00000")
    assert shipment.state == FAILED
    assert (await cancel(shipment)).state == CANCELLED
    assert await courier.consignments(shipment.shipment_id) == []


async def test_a_cancellation_during_the_submission_follows_it(ship, cancel, courier, rows):
    await courier.inject_faults(next=["create_slow_300"])
    shipping = asyncio.create_task(ship())
    await eventually(lambda: rows.fetchval("SELECT shipment_id FROM shipment"), bool)
    shipment_id = await rows.fetchval("SELECT shipment_id FROM shipment")
    assert (await cancel(pb.Shipment(shipment_id=shipment_id))).state == CANCELLED
    await shipping
    assert [one["status"] for one in await courier.consignments(shipment_id)] == ["CANCELLED"]
    states = await rows.fetch("SELECT state FROM shipment_update ORDER BY version")
    assert [row["state"] for row in states] == ["CREATED", "LABELLED", "CANCELLED"]


async def test_a_webhook_during_a_cancellation_does_not_end_it(ship, cancel, courier, app, rows):
    await courier.inject_faults(next=["create_500_then_done", "cancel_500"])
    shipment = await ship()
    await rows.execute("UPDATE dispatch SET next_attempt_time = now() + interval '1 hour'")
    await cancel(shipment)
    (consignment,) = await courier.consignments(shipment.shipment_id)
    await CourierWebhooks(app.address).send(consignment)
    assert await rows.fetchval("SELECT state FROM shipment") == "LABELLED"
    await expire_leases(rows)
    await is_cancelled(rows)


async def test_staff_cancels_a_shipment_by_its_status_and_the_order_can_have_another(
    ship, update_status, shipment_client, courier, order_id
):
    shipment = await ship()
    cancelled = await update_status(shipment, CANCELLED, note="wrong parcel")
    assert (cancelled.state, cancelled.updates[-1].note) == (CANCELLED, "wrong parcel")
    second = shipment_request(order_id)
    second.shipment_id = f"{shipment.shipment_id}-2"
    assert (await shipment_client.CreateShipment(second)).state == LABELLED
    assert await ship() == cancelled  # a late repeat of the first request
    third = shipment_request(order_id)
    third.shipment_id = f"{shipment.shipment_id}-3"
    with pytest.raises(ShipmentIdTaken):
        await shipment_client.CreateShipment(third)
    assert len(await courier.consignments(third.shipment_id)) == 0


async def test_no_user_cancels_past_svc_order_and_an_unknown_shipment_is_not_found(ship, shipments, cancel, staff):
    shipment = await ship()
    with staff(), pytest.raises(CallerDenied):
        await shipments.CancelShipment(pb.CancelShipmentRequest(shipment_id=shipment.shipment_id, actor="staff-1"))
    with pytest.raises(ShipmentNotFound):
        await cancel(pb.Shipment(shipment_id="shipment-none"))
