"""Concurrent changes of one level or reservation, and a change that cannot commit."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest

from chassis import Database, Lane, OutcomeUnknown, WatchPace
from chassis.testing import as_user
from shop.inventory.v1 import inventory_service_pb2 as pb
from shop.inventory.v1.inventory_errors import ReservationStateConflict, VersionMismatch
from svc_inventory.domain_reservation import Reserve
from svc_inventory.service import InventoryService
from tests.integration.database_control import connected, fail_commits, until_blocked


@pytest.fixture
async def rows(database):
    async with connected(database) as connection:
        yield connection


@pytest.fixture
def staff(public, issuer):
    """The service as staff calls it."""
    with as_user(f"Bearer {issuer.token('staff-1', 'staff')}"):
        yield public


def set_stock(on_hand, *, etag="", request_id):
    return pb.SetStockRequest(sku="a", location_id="bkk", on_hand=on_hand, etag=etag, request_id=request_id)


async def outcome(call, rejection):
    """Return the class of the error that a call ends with, None when it succeeds."""
    try:
        await call
    except rejection as error:
        return type(error)


async def test_of_two_concurrent_set_stock_with_one_etag_one_succeeds(staff, rows):
    first = await staff.SetStock(set_stock(5, request_id="first"))
    async with rows.transaction():
        await rows.execute("SELECT FROM stock FOR UPDATE")
        changes = [
            asyncio.create_task(
                outcome(staff.SetStock(set_stock(n, etag=first.etag, request_id=f"k-{n}")), VersionMismatch)
            )
            for n in (7, 9)
        ]
        await until_blocked(rows, 2)
    assert set(await asyncio.gather(*changes)) == {None, VersionMismatch}
    assert await rows.fetchval("SELECT count(*) FROM movement") == 2
    assert await rows.fetchval("SELECT version FROM stock") == 2


async def test_a_reservation_that_another_process_changes_during_the_batch_is_read_again(staff, inventory, rows):
    await staff.SetStock(set_stock(5, request_id="first"))
    await inventory.ReserveStock(
        pb.ReserveStockRequest(
            reservation_id="r-1",
            order_id="o-1",
            lines=[pb.StockLine(sku="a", quantity=2)],
        )
    )
    async with rows.transaction():
        await rows.execute("UPDATE reservation SET state = 'FULFILLED', version = version + 1")
        release = asyncio.create_task(
            outcome(
                inventory.ReleaseReservation(pb.ReleaseReservationRequest(reservation_id="r-1")),
                ReservationStateConflict,
            )
        )
        await until_blocked(rows)
    assert await release is ReservationStateConflict
    assert await rows.fetchval("SELECT state FROM reservation") == "FULFILLED"


@pytest.mark.parametrize("table", ["stock", "outbox"])
async def test_a_level_and_its_event_are_written_together_or_not_at_all(staff, rows, table):
    await fail_commits(rows, table)
    with pytest.raises(OutcomeUnknown):
        await staff.SetStock(set_stock(5, request_id="k-1"))
    counts = "SELECT (SELECT count(*) FROM stock), (SELECT count(*) FROM movement), (SELECT count(*) FROM outbox)"
    assert tuple(await rows.fetchrow(counts)) == (0, 0, 0)


async def test_a_batch_locks_its_levels_in_key_order_whatever_the_plan(staff, inventory, rows):
    """Or two replicas would wait for each other, until PostgreSQL ends one after a second."""
    for sku in "cba":  # so that the order of the table is another
        await staff.SetStock(pb.SetStockRequest(sku=sku, location_id="bkk", on_hand=5, request_id=f"set-{sku}"))
    name = await rows.fetchval("SELECT current_database()")
    await rows.execute(f'ALTER DATABASE "{name}" SET enable_nestloop = off; ANALYZE stock')
    await rows.execute(f'ALTER DATABASE "{name}" SET enable_mergejoin = off')
    await rows.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()", name
    )
    await eventually_reserves(inventory)
    async with rows.transaction():
        await rows.execute("SELECT FROM stock WHERE sku = 'b' FOR UPDATE")
        reservation = asyncio.create_task(inventory.ReserveStock(reserve_each("r-1", "a", "b", "c")))
        await until_blocked(rows)
        assert await rows.fetch("SELECT FROM stock WHERE sku = 'c' FOR UPDATE NOWAIT")
        assert not await rows.fetch("SELECT FROM stock WHERE sku = 'a' FOR UPDATE SKIP LOCKED")
    await reservation


def reserve_each(reservation_id, *skus):
    lines = [pb.StockLine(sku=sku, quantity=1) for sku in skus]
    return pb.ReserveStockRequest(reservation_id=reservation_id, order_id="o-1", lines=lines)


async def eventually_reserves(inventory):
    """Reserve once the connections that were ended are replaced by some with the new settings."""
    async with asyncio.timeout(30):
        while await outcome(inventory.ReserveStock(reserve_each("warm", "a")), OutcomeUnknown):
            await asyncio.sleep(0.01)


async def test_of_many_replicas_of_a_hot_level_each_gets_its_turn_after_one_conflict(staff, database, rows):
    """A version check alone lets a batch lose any number of times."""
    await staff.SetStock(pb.SetStockRequest(sku="a", location_id="bkk", on_hand=500, request_id="set"))
    tries = []
    async with AsyncExitStack() as stack:
        lanes = []
        for _ in range(12):
            service = InventoryService(
                await stack.enter_async_context(Database.open(database, 2)),
                hold=timedelta(hours=1),
                pace=WatchPace(400, 0.25),
            )
            lanes.append(Lane(counted(service._apply, tries)))
        commands = [
            Reserve(reservation_id=f"r-{at}-{n}", order_id="o", lines=(("a", 1),), ttl=timedelta(hours=1))
            for at in range(len(lanes))
            for n in range(10)
        ]
        for turn in range(10):
            await asyncio.gather(*(lane.submit(commands[at * 10 + turn]) for at, lane in enumerate(lanes)))
    assert await rows.fetchval("SELECT reserved FROM stock") == 120
    assert max(map(tries.count, set(tries))) <= 3


def counted(apply, tries):
    async def counted_apply(commands):
        tries.append(commands[0].reservation_id)
        return await apply(commands)

    return counted_apply
