"""Concurrent changes of one level or reservation, and a change that cannot commit."""

import asyncio

import pytest

from chassis import OutcomeUnknown
from chassis.testing import as_user
from shop.inventory.v1 import inventory_service_pb2 as pb
from shop.inventory.v1.inventory_errors import ReservationStateConflict, VersionMismatch
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
