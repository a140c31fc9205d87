"""The RPCs of svc_inventory, on a real database."""

import asyncio
import time
from datetime import timedelta

import asyncpg
import pytest

from chassis import OutcomeUnknown, current_call
from chassis.telemetry import trace_id
from chassis.testing import as_user, client_for, serving
from mesh.qa.verify.checks import read_service
from shop.chassis.v1.chassis_errors import (
    CallerDenied,
    IdempotencyKeyReused,
    InvalidRequest,
    Overloaded,
    RoleMissing,
    TokenMissing,
    WriteContended,
)
from shop.inventory.v1 import inventory_events_pb2 as events
from shop.inventory.v1 import inventory_service_pb2 as pb
from shop.inventory.v1.inventory_errors import (
    InsufficientStock,
    ReservationExpired,
    ReservationIdTaken,
    ReservationStateConflict,
    SkuNotFound,
    VersionMismatch,
)
from shop.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub
from svc_inventory.__main__ import compose


@pytest.fixture
async def put(public, issuer):
    """Set a level as staff: `await put("sku", "bkk", 10)`."""

    async def put(sku, location_id, on_hand, *, etag="", request_id=None, safety_stock=0):
        with as_user(f"Bearer {issuer.token('staff-1', 'staff')}"):
            return await public.SetStock(
                pb.SetStockRequest(
                    sku=sku,
                    location_id=location_id,
                    on_hand=on_hand,
                    safety_stock=safety_stock,
                    etag=etag,
                    request_id=request_id or f"{sku}-{location_id}-{on_hand}-{etag}",
                )
            )

    return put


def reserve(reservation_id, *lines, order_id="order-1", ttl=None):
    request = pb.ReserveStockRequest(
        reservation_id=reservation_id,
        order_id=order_id,
        lines=[pb.StockLine(sku=sku, quantity=quantity) for sku, quantity in lines],
    )
    if ttl is not None:
        request.ttl.FromTimedelta(ttl)
    return request


def confirm(reservation_id):
    return pb.ConfirmReservationRequest(reservation_id=reservation_id)


def release(reservation_id):
    return pb.ReleaseReservationRequest(reservation_id=reservation_id)


async def available(public, sku):
    return (await public.GetStock(pb.GetStockRequest(sku=sku))).available


async def test_a_reservation_holds_all_its_lines_and_sums_a_repeated_sku(inventory, public, put):
    await put("a", "bkk", 5)
    await put("b", "bkk", 5)
    held = await inventory.ReserveStock(reserve("r-1", ("a", 2), ("b", 1), ("a", 2)))
    assert held.state == pb.RESERVATION_STATE_HELD
    assert [(one.sku, one.quantity) for one in held.allocations] == [("a", 4), ("b", 1)]
    assert await available(public, "a") == 1


async def test_a_reservation_that_is_short_of_one_line_holds_none(inventory, public, put):
    await put("a", "bkk", 5)
    await put("b", "bkk", 1)
    with pytest.raises(InsufficientStock) as refusal:
        await inventory.ReserveStock(reserve("r-1", ("a", 1), ("b", 2)))
    assert refusal.value.metadata == {"available": "b=1"}
    assert await available(public, "a") == 5


async def test_reserving_an_unknown_sku_is_an_error(inventory, put):
    with pytest.raises(SkuNotFound):
        await inventory.ReserveStock(reserve("r-1", ("nothing", 1)))


async def test_a_repeated_reservation_returns_the_first(inventory, public, put):
    await put("a", "bkk", 5)
    first = await inventory.ReserveStock(reserve("r-1", ("a", 2)))
    assert await inventory.ReserveStock(reserve("r-1", ("a", 2))) == first
    assert await available(public, "a") == 3
    with pytest.raises(ReservationIdTaken):
        await inventory.ReserveStock(reserve("r-1", ("a", 3)))


async def test_a_hold_lasts_for_the_requested_ttl_or_the_configured_time(inventory, app, put):
    await put("a", "bkk", 5)
    short = await inventory.ReserveStock(reserve("r-1", ("a", 1), ttl=timedelta(minutes=2)))
    usual = await inventory.ReserveStock(reserve("r-2", ("a", 1)))
    lasts = [one.expire_time.ToDatetime() - one.create_time.ToDatetime() for one in (short, usual)]
    assert lasts == [timedelta(minutes=2), timedelta(seconds=app.settings.hold_seconds)]


async def test_one_location_is_preferred_and_several_are_used_when_needed(inventory, put):
    await put("a", "bkk", 3)
    await put("a", "cnx", 5)
    whole = await inventory.ReserveStock(reserve("r-1", ("a", 4)))
    assert [(one.location_id, one.quantity) for one in whole.allocations] == [("cnx", 4)]
    split = await inventory.ReserveStock(reserve("r-2", ("a", 4)))
    assert sorted((one.location_id, one.quantity) for one in split.allocations) == [("bkk", 3), ("cnx", 1)]


async def buy(stub, number):
    """Return whether an order gets a unit that all want; repeat until the outcome is known, as svc_order does."""
    while True:
        try:
            await stub.ReserveStock(reserve(f"r-{number}", ("hot", 1), order_id=f"o-{number}"))
        except InsufficientStock:
            return False
        except (OutcomeUnknown, Overloaded, WriteContended):
            await asyncio.sleep(0.05)
        else:
            return True


async def test_two_hundred_buyers_of_fifty_units_get_exactly_fifty(inventory, public, put, database):
    await put("hot", "bkk", 50)
    bought = await asyncio.gather(*(buy(inventory, number) for number in range(200)))
    assert sum(bought) == 50
    assert await available(public, "hot") == 0
    await assert_counters_are_the_sum_of_movements(database)


async def test_two_processes_over_one_database_never_oversell(inventory, app, database, issuer, put):
    await put("hot", "bkk", 30)
    settings = app.settings
    async with (
        serving("svc_inventory", settings, compose, issuer) as other,
        client_for(other.address, InventoryServiceStub, caller="svc_order") as twin,
    ):
        bought = await asyncio.gather(*(buy(twin if number % 2 else inventory, number) for number in range(120)))
    assert sum(bought) == 30
    await assert_counters_are_the_sum_of_movements(database)


async def test_confirming_allocates_units_and_fulfilling_ships_them(inventory, public, put, issuer):
    await put("a", "bkk", 5)
    await inventory.ReserveStock(reserve("r-1", ("a", 2)))
    assert (await inventory.ConfirmReservation(confirm("r-1"))).state == pb.RESERVATION_STATE_CONFIRMED
    assert (await inventory.ConfirmReservation(confirm("r-1"))).state == pb.RESERVATION_STATE_CONFIRMED
    fulfilled = await inventory.FulfillReservation(pb.FulfillReservationRequest(reservation_id="r-1"))
    assert fulfilled.state == pb.RESERVATION_STATE_FULFILLED
    with as_user(f"Bearer {issuer.token('staff-1', 'staff')}"):
        (level,) = (await public.ListStockLevels(pb.ListStockLevelsRequest(sku="a"))).levels
    assert (level.on_hand, level.allocated, level.reserved, level.available) == (3, 0, 0, 3)
    with pytest.raises(ReservationStateConflict):
        await inventory.ReleaseReservation(release("r-1"))


async def test_releasing_makes_the_units_available_once(inventory, public, put):
    await put("a", "bkk", 5)
    await inventory.ReserveStock(reserve("r-1", ("a", 2)))
    await inventory.ReleaseReservation(release("r-1"))
    assert (await inventory.ReleaseReservation(release("r-1"))).state == pb.RESERVATION_STATE_RELEASED
    assert await available(public, "a") == 5
    with pytest.raises(ReservationStateConflict):
        await inventory.ConfirmReservation(confirm("r-1"))


async def test_an_expired_hold_is_released_and_cannot_be_confirmed_once_its_units_are_sold(
    inventory, public, put, database
):
    await put("a", "bkk", 5)
    await inventory.ReserveStock(reserve("r-1", ("a", 2)))
    await age(database, "r-1")
    async with asyncio.timeout(60):
        while await available(public, "a") != 5:
            await asyncio.sleep(0.02)
    await inventory.ReserveStock(reserve("r-2", ("a", 4)))
    with pytest.raises(ReservationExpired):
        await inventory.ConfirmReservation(confirm("r-1"))
    await inventory.ReleaseReservation(release("r-2"))
    assert (await inventory.ConfirmReservation(confirm("r-1"))).state == pb.RESERVATION_STATE_CONFIRMED
    assert await available(public, "a") == 3
    await assert_invariants_hold(database)


def reduce(reservation_id, *lines):
    return pb.ReduceReservationRequest(
        reservation_id=reservation_id, lines=[pb.StockLine(sku=sku, quantity=quantity) for sku, quantity in lines]
    )


async def test_a_reduced_reservation_releases_units_once_and_ships_the_rest(inventory, public, put, database):
    await put("a", "bkk", 5)
    await put("b", "bkk", 5)
    await inventory.ReserveStock(reserve("r-1", ("a", 3), ("b", 1)))
    await inventory.ConfirmReservation(confirm("r-1"))
    reduced, again = await asyncio.gather(*(inventory.ReduceReservation(reduce("r-1", ("a", 2))) for _ in range(2)))
    assert [(one.sku, one.quantity) for one in reduced.allocations] == [("a", 2)]
    assert again.etag == reduced.etag
    assert (await available(public, "a"), await available(public, "b")) == (3, 5)
    assert await inventory.GetReservation(pb.GetReservationRequest(reservation_id="r-1")) == reduced
    await assert_invariants_hold(database)
    await inventory.FulfillReservation(pb.FulfillReservationRequest(reservation_id="r-1"))
    await assert_invariants_hold(database)
    rows = await asyncpg.connect(database)
    types = await rows.fetch("SELECT type FROM outbox WHERE key = 'r-1' ORDER BY id")
    await rows.close()
    assert [row["type"].rpartition(".")[2] for row in types] == [
        *("ReservationHeld", "ReservationConfirmed", "ReservationReduced", "ReservationFulfilled")
    ]


async def test_set_stock_requires_the_current_etag(put):
    first = await put("a", "bkk", 5)
    second = await put("a", "bkk", 7, etag=first.etag)
    assert (second.on_hand, second.available) == (7, 7)
    with pytest.raises(VersionMismatch):
        await put("a", "bkk", 9, etag=first.etag)
    with pytest.raises(VersionMismatch):
        await put("a", "bkk", 9)


async def test_set_stock_repeated_with_its_key_changes_nothing(put, database):
    first = await put("a", "bkk", 5, request_id="k-1")
    assert await put("a", "bkk", 5, request_id="k-1") == first
    with pytest.raises(IdempotencyKeyReused):
        await put("a", "bkk", 6, request_id="k-1")
    await assert_counters_are_the_sum_of_movements(database)


async def test_a_count_is_accepted_while_its_sku_sells(inventory, put):
    level = await put("a", "bkk", 5)
    await inventory.ReserveStock(reserve("r-1", ("a", 3)))
    counted = await put("a", "bkk", 7, etag=level.etag)
    assert (counted.on_hand, counted.reserved, counted.available) == (7, 3, 4)


async def test_a_count_below_the_promised_units_stops_sales_and_is_published_as_oversold(
    inventory, public, put, database
):
    level = await put("a", "bkk", 5)
    await inventory.ReserveStock(reserve("r-1", ("a", 3)))
    counted = await put("a", "bkk", 1, etag=level.etag)
    assert (counted.on_hand, counted.shortfall, counted.available) == (1, 2, 0)
    assert await oversold(database) == [("a", "bkk", 2)]
    with pytest.raises(InsufficientStock):
        await inventory.ReserveStock(reserve("r-2", ("a", 1)))
    await inventory.ReleaseReservation(release("r-1"))
    assert await available(public, "a") == 1
    await assert_counters_are_the_sum_of_movements(database)


async def oversold(database):
    connection = await asyncpg.connect(database)
    rows = await connection.fetch("SELECT payload FROM outbox WHERE type LIKE '%StockOversold' ORDER BY id")
    await connection.close()
    found = [events.StockOversold.FromString(row["payload"]) for row in rows]
    return [(event.sku, event.location_id, event.shortfall) for event in found]


async def test_the_contract_decides_who_may_call(inventory, public, issuer):
    with pytest.raises(CallerDenied):
        await public.ReserveStock(reserve("r-1", ("a", 1)))
    request = pb.SetStockRequest(sku="a", location_id="bkk", on_hand=1, request_id="k-1")
    with pytest.raises(TokenMissing):
        await public.SetStock(request)
    with as_user(f"Bearer {issuer.token('customer-1')}"), pytest.raises(RoleMissing):
        await public.SetStock(request)


async def test_a_validation_error_names_the_field(inventory):
    with pytest.raises(InvalidRequest) as refusal:
        await inventory.ReserveStock(reserve("r-1", ("a", 1), ("b", -2)))
    assert refusal.value.metadata["field"] == "lines[1].quantity"


async def test_a_watch_sends_the_current_stock_and_then_every_change(inventory, public, put):
    await put("a", "bkk", 5)
    watch = public.WatchAvailability(pb.WatchAvailabilityRequest(skus=["a"]))
    async with asyncio.timeout(60):
        first = await anext(watch)
        assert first.stock.available == 5
        await inventory.ReserveStock(reserve("r-1", ("a", 2)))
        second = await anext(watch)
        assert second.stock.available == 3
    resumed = public.WatchAvailability(pb.WatchAvailabilityRequest(skus=["a"], resume_token=first.resume_token))
    async with asyncio.timeout(60):
        assert (await anext(resumed)).stock.available == 3
    await watch.aclose()
    await resumed.aclose()


async def test_a_watcher_of_a_selling_sku_gets_a_few_messages_a_second_and_the_newest_state(inventory, public, put):
    await put("a", "bkk", 100)
    watch = public.WatchAvailability(pb.WatchAvailabilityRequest(skus=["a"]))
    began, seen = time.monotonic(), [(await anext(watch)).stock.available]
    selling = asyncio.create_task(sell_each(inventory, 100))
    async with asyncio.timeout(60):
        while seen[-1]:
            seen.append((await anext(watch)).stock.available)
    await selling
    assert len(seen) <= 2 + (time.monotonic() - began) / 0.18
    await watch.aclose()


async def sell_each(inventory, units):
    for number in range(units):
        await inventory.ReserveStock(reserve(f"r-{number}", ("a", 1)))


async def test_a_resumed_watch_starts_with_what_changed_after_its_token(public, put):
    skus = ["a", "b", "c"]
    for sku in skus:
        await put(sku, "bkk", 5)
    watch = public.WatchAvailability(pb.WatchAvailabilityRequest(skus=skus))
    async with asyncio.timeout(60):
        seen = [await anext(watch) for _ in skus]
        await put("c", "bkk", 7, etag="5-0")
        resumed = public.WatchAvailability(pb.WatchAvailabilityRequest(skus=skus, resume_token=seen[-1].resume_token))
        first = (await anext(resumed)).stock
    assert (first.sku, first.available) == ("c", 7)
    await watch.aclose()
    await resumed.aclose()


async def test_movements_are_listed_newest_first_page_by_page(inventory, public, put, issuer):
    await put("a", "bkk", 5)
    for number in range(3):
        await inventory.ReserveStock(reserve(f"r-{number}", ("a", 1)))
    with as_user(f"Bearer {issuer.token('staff-1', 'staff')}"):
        first = await public.ListStockMovements(pb.ListStockMovementsRequest(sku="a", page_size=3))
        rest = await public.ListStockMovements(
            pb.ListStockMovementsRequest(sku="a", page_size=3, page_token=first.next_page_token)
        )
    assert [one.reservation_id for one in first.movements] == ["r-2", "r-1", "r-0"]
    assert [one.kind for one in rest.movements] == [pb.MOVEMENT_KIND_RECEIVED]
    assert rest.next_page_token == ""


async def age(database, reservation_id):
    """Let a hold's time pass, by the database's clock."""
    connection = await asyncpg.connect(database)
    await connection.execute(
        "UPDATE reservation SET expire_time = now() - interval '1 second' WHERE reservation_id = $1", reservation_id
    )
    await connection.close()


async def assert_invariants_hold(database):
    connection = await asyncpg.connect(database)
    for check in read_service("svc_inventory")[0]:
        if not check.eventual:
            assert await connection.fetch(check.sql) == [], check.name
    await connection.close()


async def assert_counters_are_the_sum_of_movements(database):
    connection = await asyncpg.connect(database)
    drifted = await connection.fetch(
        """SELECT sku FROM stock JOIN (
               SELECT sku, location_id, count(*) n, sum(on_hand_delta) h, sum(allocated_delta) a, sum(reserved_delta) r
               FROM movement GROUP BY 1, 2) m USING (sku, location_id)
           WHERE (version, on_hand, allocated, reserved) IS DISTINCT FROM (n, h, a, r)"""
    )
    await connection.close()
    assert not drifted


async def test_the_events_of_a_reservation_carry_the_trace_of_its_request(inventory, put, database):
    skus = ("a", "b", "c")
    for sku in skus:
        await put(sku, "bkk", 5)

    async def ask(sku):
        with as_user():
            await inventory.ReserveStock(reserve(f"r-{sku}", (sku, 1)))
            return trace_id(current_call().traceparent)

    caused = dict(zip(skus, await asyncio.gather(*map(ask, skus)), strict=True))
    connection = await asyncpg.connect(database)
    told = await connection.fetch("SELECT key, traceparent FROM outbox WHERE id > 3")
    await connection.close()
    assert {row["key"]: trace_id(row["traceparent"]) for row in told} == {
        **caused,
        **{f"r-{sku}": trace for sku, trace in caused.items()},
    }
