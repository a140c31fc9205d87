"""The audit log: one row for each privileged change, in its transaction, in a chain that shows tampering."""
# ruff: noqa: N802  the names of RPCs

import asyncio
import json
from contextvars import Context

import asyncpg
import grpc
import pytest

from chassis import Settings, transactional
from chassis.context import Audit, Call, User, enter_call
from mesh.qa.verify.checks import read_service
from shop.inventory.v1 import inventory_service_pb2 as pb
from shop.inventory.v1.inventory_errors import InsufficientStock

METHOD = "/shop.inventory.v1.InventoryService/SetStock"
EDGE = (("x-shop-caller", "edge"),)
(CHAIN,) = [one.sql for one in read_service("svc_inventory")[0] if one.name == "audit_chain_is_intact"]


class Stock:
    """A privileged handler that writes a note, and fails as its `error` says."""

    def __init__(self, db):
        self.db = db
        self.error = None

    @transactional
    async def SetStock(self, request: pb.SetStockRequest, tx) -> pb.StockLevel:
        await tx.execute("INSERT INTO note (id) VALUES ($1)", request.request_id)
        if self.error:
            raise self.error
        return pb.StockLevel(sku=request.sku)


@pytest.fixture
def stock(database):
    return Stock(database)


async def set_stock(stock, key="k-1", user="staff-1"):
    """Call the handler as the pipeline does."""
    call = Call(method=METHOD, caller="edge", user=User(id=user), audit=Audit({"sku": "a"}))

    async def run():
        enter_call(call)
        await stock.SetStock(pb.SetStockRequest(sku="a", location_id="bkk", request_id=key), None)

    await asyncio.create_task(run(), context=Context())
    return call.audit


async def rows(database):
    return await database.pool.fetch("SELECT * FROM audit ORDER BY audit_id")


async def test_a_privileged_change_is_recorded_with_its_user_and_request(database, stock):
    audited = await set_stock(stock)
    (row,) = await rows(database)
    assert (row["method"], row["user_id"], row["caller"], row["outcome"]) == (METHOD, "staff-1", "edge", "OK")
    assert json.loads(row["request"]) == {"sku": "a"}
    assert audited.row == {"audit_id": 1, "hash": row["hash"].hex()}


async def test_a_change_that_fails_is_not_recorded_and_one_whose_error_is_stored_is(database, stock):
    stock.error = RuntimeError()
    with pytest.raises(RuntimeError):
        await set_stock(stock)
    assert await rows(database) == []
    stock.error = InsufficientStock(available="a=1")
    with pytest.raises(InsufficientStock):
        await set_stock(stock)
    assert [row["outcome"] for row in await rows(database)] == ["INSUFFICIENT_STOCK"]


async def test_a_repeated_request_is_recorded_once(database, stock):
    await set_stock(stock)
    assert (await set_stock(stock)).row
    assert len(await rows(database)) == 1


async def test_concurrent_changes_form_one_chain_without_gaps(database, stock):
    await asyncio.gather(*(set_stock(stock, f"k-{number}") for number in range(20)))
    assert [row["audit_id"] for row in await rows(database)] == list(range(1, 21))
    assert await database.pool.fetch(CHAIN) == []


@pytest.mark.parametrize("change", ["UPDATE audit SET user_id = 'x'", "DELETE FROM audit", "TRUNCATE audit"])
async def test_the_database_refuses_to_change_the_log(database, stock, change):
    await set_stock(stock)
    with pytest.raises(asyncpg.RaiseError, match="append-only"):
        await database.pool.execute(change)


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ("UPDATE audit SET user_id = 'x' WHERE audit_id = 2", [2]),
        ("DELETE FROM audit WHERE audit_id = 2", [3]),
        ("UPDATE audit SET user_id = 'x', hash = 'y' WHERE audit_id = 2", [2, 3]),
    ],
)
async def test_a_change_around_the_triggers_breaks_the_chain(database, database_url, stock, change, broken):
    for number in range(3):
        await set_stock(stock, f"k-{number}")
    owner = await asyncpg.connect(database_url)
    await owner.execute("SET session_replication_role = replica")
    await owner.execute(change)
    await owner.close()
    assert [row["audit_id"] for row in await database.pool.fetch(CHAIN)] == broken


@pytest.fixture
def settings(database_url, redis_url, event_prefix):
    return Settings(database_url=database_url, redis_url=redis_url, event_prefix=event_prefix)


async def test_a_call_through_the_pipeline_is_recorded_and_logged_with_its_row(serve, connect, issuer, log, settings):
    stocks = []

    async def compose(app):
        stocks.append(Stock(await app.database()))

    async def handler(request, context):
        return await stocks[0].SetStock(request, context)

    staff = (*EDGE, ("authorization", f"Bearer {issuer.token('staff-1', 'staff')}"))
    request = pb.SetStockRequest(sku="a", location_id="bkk", on_hand=1, request_id="k-1")
    async with serve(settings=settings, compose=compose, SetStock=handler) as app, connect(app.address) as call:
        await call.SetStock(request, metadata=staff)
        (row,) = await rows(stocks[0].db)
    assert json.loads(row["request"])["sku"] == "a"
    (line,) = log.lines("audit")
    assert (line["audit_id"], line["hash"]) == (1, row["hash"].hex())
    assert not log.lines("a privileged call left no audit row")


async def test_a_privileged_handler_that_writes_nothing_is_an_error_in_the_log(serve, connect, issuer, log):
    async def handler(request, context):
        return pb.StockLevel()

    staff = (*EDGE, ("authorization", f"Bearer {issuer.token('staff-1', 'staff')}"))
    request = pb.SetStockRequest(sku="a", location_id="bkk", on_hand=1, request_id="k-1")
    async with serve(SetStock=handler) as app, connect(app.address) as call:
        assert await call.SetStock(request, metadata=staff).code() is grpc.StatusCode.OK
    assert len(log.lines("a privileged call left no audit row")) == 1
