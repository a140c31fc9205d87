"""AdjustStock and ExtendReservation, and the release that arrives before its reservation."""

import asyncio
import json
from datetime import timedelta

import pytest

from chassis.testing import as_user, client_for, serving
from shop.chassis.v1.chassis_errors import CallerDenied, IdempotencyKeyReused, RoleMissing, TokenMissing
from shop.inventory.v1 import inventory_events_pb2 as events
from shop.inventory.v1 import inventory_service_pb2 as pb
from shop.inventory.v1.inventory_errors import ReservationStateConflict, SkuNotFound, StockOutOfRange
from shop.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub
from svc_inventory.__main__ import compose
from tests.integration.database_control import connected


@pytest.fixture
async def rows(database):
    async with connected(database) as connection:
        yield connection


@pytest.fixture
def staff(public, issuer):
    """The service as staff calls it."""
    with as_user(f"Bearer {issuer.token('staff-1', 'staff')}"):
        yield public


@pytest.fixture
async def stocked(staff):
    """5 units of the SKU `a`."""
    await staff.SetStock(pb.SetStockRequest(sku="a", location_id="bkk", on_hand=5, request_id="first"))


def adjust(request_id, delta, *, sku="a", reason=pb.ADJUSTMENT_REASON_RECEIVED, reference="note-1"):
    line = pb.AdjustmentLine(sku=sku, location_id="bkk", delta=delta)
    return pb.AdjustStockRequest(lines=[line], reason=reason, reference=reference, request_id=request_id)


def reserve(reservation_id, quantity):
    lines = [pb.StockLine(sku="a", quantity=quantity)]
    return pb.ReserveStockRequest(reservation_id=reservation_id, order_id="o-1", lines=lines)


async def level(staff):
    (found,) = (await staff.ListStockLevels(pb.ListStockLevelsRequest(sku="a"))).levels
    return found


@pytest.mark.usefixtures("stocked")
async def test_units_come_in_while_orders_take_them_and_none_is_lost(staff, inventory, rows):
    async def buy(number):
        await inventory.ReserveStock(reserve(f"r-{number}", 1))

    await asyncio.gather(*(staff.AdjustStock(adjust(f"k-{n}", 2)) for n in range(40)), *(buy(n) for n in range(5)))
    after = await level(staff)
    assert (after.on_hand, after.reserved) == (85, 5)
    assert await rows.fetchval("SELECT version = (SELECT count(*) FROM movement) FROM stock")


@pytest.mark.usefixtures("stocked")
async def test_promised_units_that_are_lost_are_published_as_oversold(staff, inventory, rows):
    await inventory.ReserveStock(reserve("r-1", 3))
    await staff.AdjustStock(adjust("k-1", -4, reason=pb.ADJUSTMENT_REASON_LOST))
    after = await level(staff)
    assert (after.on_hand, after.shortfall, after.available) == (1, 2, 0)
    (published,) = await rows.fetch("SELECT payload FROM outbox WHERE type LIKE '%StockOversold'")
    assert events.StockOversold.FromString(published["payload"]).shortfall == 2


@pytest.mark.usefixtures("stocked")
async def test_each_adjustment_of_a_batch_is_in_the_audit_log_and_a_reservation_is_not(staff, inventory, rows):
    batch = [staff.AdjustStock(adjust(f"k-{n}", 2)) for n in range(5)]
    await asyncio.gather(*batch, inventory.ReserveStock(reserve("r-1", 1)))
    audited = await rows.fetch("SELECT method, user_id, request FROM audit WHERE method NOT LIKE '%/SetStock'")
    assert {(row["method"], row["user_id"]) for row in audited} == {
        ("/shop.inventory.v1.InventoryService/AdjustStock", "staff-1")
    }
    assert sorted(json.loads(row["request"])["request_id"] for row in audited) == [f"k-{n}" for n in range(5)]


@pytest.mark.usefixtures("stocked")
async def test_an_adjustment_repeated_with_its_key_changes_nothing(staff, inventory, rows):
    first = await staff.AdjustStock(adjust("k-1", 3))
    assert await staff.AdjustStock(adjust("k-1", 3)) == first
    assert (first.actor, first.reference, first.reason) == ("staff-1", "note-1", pb.ADJUSTMENT_REASON_RECEIVED)
    with pytest.raises(IdempotencyKeyReused):
        await staff.AdjustStock(adjust("k-1", 4))
    assert (await inventory.AdjustStock(adjust("k-1", 4))).actor == "svc_order", "another's key is another key"
    assert (await level(staff)).on_hand == 12


@pytest.mark.usefixtures("stocked")
async def test_an_adjustment_repeated_at_another_replica_changes_nothing(staff, inventory, app, database, issuer):
    async with (
        serving("svc_inventory", app.settings, compose, issuer) as other,
        client_for(other.address, InventoryServiceStub, caller="svc_order") as twin,
    ):
        replies = await asyncio.gather(*(stub.AdjustStock(adjust("k-1", 3)) for stub in (inventory, twin) * 4))
    assert {reply.SerializeToString() for reply in replies} == {replies[0].SerializeToString()}
    assert (await level(staff)).on_hand == 8


@pytest.mark.usefixtures("stocked")
async def test_movements_name_the_reason_and_reference_of_their_adjustment(staff):
    await staff.AdjustStock(adjust("k-1", -2, reason=pb.ADJUSTMENT_REASON_DAMAGED))
    damaged, first = (await staff.ListStockMovements(pb.ListStockMovementsRequest(sku="a"))).movements
    assert (damaged.kind, damaged.on_hand_delta, damaged.actor) == (pb.MOVEMENT_KIND_ADJUSTED, -2, "staff-1")
    assert (damaged.adjustment_reason, damaged.reference) == (pb.ADJUSTMENT_REASON_DAMAGED, "note-1")
    assert (first.adjustment_reason, first.reference) == (pb.ADJUSTMENT_REASON_UNSPECIFIED, "")


@pytest.mark.usefixtures("stocked")
async def test_an_adjustment_of_an_unknown_level_or_beyond_the_stock_is_an_error(staff):
    with pytest.raises(SkuNotFound):
        await staff.AdjustStock(adjust("k-1", 1, sku="b"))
    with pytest.raises(StockOutOfRange):
        await staff.AdjustStock(adjust("k-2", -6))
    assert (await level(staff)).on_hand == 5


@pytest.mark.usefixtures("stocked")
async def test_staff_and_svc_order_adjust_stock_and_no_one_else(public, inventory, app, issuer):
    with as_user(f"Bearer {issuer.token('customer-1')}"):
        with pytest.raises(RoleMissing):
            await public.AdjustStock(adjust("k-1", 1))
        await inventory.AdjustStock(adjust("k-1", 1))
    with as_user(""), pytest.raises(TokenMissing):
        await public.AdjustStock(adjust("k-2", 1))
    async with client_for(app.address, InventoryServiceStub, caller="svc_catalog") as stranger:
        with pytest.raises(CallerDenied):
            await stranger.AdjustStock(adjust("k-3", 1))


@pytest.mark.usefixtures("stocked")
async def test_an_extended_hold_lasts_from_now_and_is_published(inventory, rows):
    held = await inventory.ReserveStock(reserve("r-1", 2))
    request = pb.ExtendReservationRequest(reservation_id="r-1")
    request.ttl.FromTimedelta(timedelta(hours=2))
    extended = await inventory.ExtendReservation(request)
    assert extended.expire_time.ToDatetime() - held.expire_time.ToDatetime() > timedelta(minutes=90)
    assert (await inventory.GetReservation(pb.GetReservationRequest(reservation_id="r-1"))) == extended
    types = [row["type"] for row in await rows.fetch("SELECT type FROM outbox WHERE key = 'r-1' ORDER BY id")]
    assert [name.rpartition(".")[2] for name in types] == ["ReservationHeld", "ReservationExtended"]


@pytest.mark.usefixtures("stocked")
async def test_a_reservation_released_before_it_arrives_never_holds(staff, inventory):
    released = await inventory.ReleaseReservation(pb.ReleaseReservationRequest(reservation_id="r-1"))
    assert released.state == pb.RESERVATION_STATE_RELEASED
    with pytest.raises(ReservationStateConflict):
        await inventory.ReserveStock(reserve("r-1", 2))
    assert await inventory.ReleaseReservation(pb.ReleaseReservationRequest(reservation_id="r-1")) == released
    assert (await level(staff)).reserved == 0
