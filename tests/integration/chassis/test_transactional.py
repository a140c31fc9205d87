"""Transactional handlers: one transaction for each call, at most one change for each request_id."""
# ruff: noqa: N802  the names of RPCs

import asyncio
from dataclasses import dataclass, field

import asyncpg
import pytest

from chassis import Database, Transaction, transactional
from chassis.context import Call, User, current_call, enter_call
from shop.chassis.v1.chassis_errors import IdempotencyKeyReused
from shop.inventory.v1 import inventory_service_pb2 as pb
from shop.inventory.v1.inventory_errors import InsufficientStock

INSERT = "INSERT INTO note (id) VALUES ($1)"
METHOD = "/shop.inventory.v1.InventoryService/SetStock"


def set_stock(key="k-1", sku="a", on_hand=1):
    return pb.SetStockRequest(sku=sku, location_id="bkk", on_hand=on_hand, request_id=key)


@dataclass
class Stock:
    """Handlers that leave a row for each time that they took effect, and fail with the errors that a test lists."""

    db: Database
    errors: list[Exception] = field(default_factory=list)
    runs: int = 0
    committed: list[str] = field(default_factory=list)

    @transactional
    async def SetStock(self, request: pb.SetStockRequest, tx: Transaction) -> pb.StockLevel:  # noqa: ARG002
        """With a request_id."""
        return pb.StockLevel(etag=await self._change(tx))

    @transactional
    async def GetStock(self, request: pb.GetStockRequest, tx: Transaction) -> pb.Stock:
        """Without a request_id."""
        return pb.Stock(sku=request.sku + await self._change(tx))

    async def _change(self, tx):
        self.runs += 1
        effect = f"effect-{self.runs}"
        await tx.execute(INSERT, effect)
        self.db.on_commit(tx, lambda: self.committed.append(effect))
        if self.errors:
            raise self.errors.pop(0)
        return effect


@pytest.fixture
def stock(database):
    return Stock(database)


@pytest.fixture(autouse=True)
def call():
    """A call of a user, as the pipeline sets it."""
    enter_call(Call(method=METHOD, caller="edge", user=User(id="user-1")))
    yield
    enter_call(None)


async def effects(database):
    return [row["id"] for row in await database.pool.fetch("SELECT id FROM note ORDER BY id")]


async def test_the_handlers_changes_commit_with_its_reply(database, stock):
    assert (await stock.SetStock(set_stock(), None)).etag == "effect-1"
    assert await effects(database) == stock.committed == ["effect-1"]


async def test_a_repeated_request_gets_the_stored_reply_and_changes_nothing(database, stock):
    first = await stock.SetStock(set_stock(), None)
    assert await stock.SetStock(set_stock(), None) == first
    assert current_call().trailers["idempotent-replayed"] == "true"
    assert await effects(database) == stock.committed == ["effect-1"]


async def test_a_request_id_that_came_with_another_request_is_an_error(database, stock):
    await stock.SetStock(set_stock(), None)
    with pytest.raises(IdempotencyKeyReused):
        await stock.SetStock(set_stock(on_hand=2), None)
    assert await effects(database) == stock.committed == ["effect-1"]


async def test_an_error_is_stored_and_what_led_to_it_is_rolled_back(database, stock):
    stock.errors = [InsufficientStock(available="a=1")]
    for _ in range(2):
        with pytest.raises(InsufficientStock) as stored:
            await stock.SetStock(set_stock(), None)
        assert stored.value.metadata == {"available": "a=1"}
    assert await effects(database) == stock.committed == []


async def test_an_unexpected_error_leaves_the_request_id_free(database, stock):
    stock.errors = [ValueError("x")]
    with pytest.raises(ValueError, match="x"):
        await stock.SetStock(set_stock(), None)
    assert await effects(database) == stock.committed == []
    assert (await stock.SetStock(set_stock(), None)).etag == "effect-2"
    assert await effects(database) == stock.committed == ["effect-2"]


async def test_requests_of_a_type_without_a_request_id_are_all_carried_out(database, stock):
    replies = [await stock.GetStock(pb.GetStockRequest(sku="a"), None) for _ in range(2)]
    assert [reply.sku for reply in replies] == ["aeffect-1", "aeffect-2"]
    assert await effects(database) == stock.committed == ["effect-1", "effect-2"]
    assert await database.pool.fetchval("SELECT count(*) FROM idempotency") == 0


async def test_an_error_of_a_request_without_a_request_id_rolls_back_and_is_not_stored(database, stock):
    stock.errors = [InsufficientStock(available="a=1")]
    with pytest.raises(InsufficientStock):
        await stock.GetStock(pb.GetStockRequest(sku="a"), None)
    assert await effects(database) == stock.committed == []
    assert (await stock.GetStock(pb.GetStockRequest(sku="a"), None)).sku == "aeffect-2"


@pytest.mark.parametrize("error", [asyncpg.DeadlockDetectedError, asyncpg.SerializationError])
@pytest.mark.parametrize(("rpc", "request_"), [("SetStock", set_stock()), ("GetStock", pb.GetStockRequest(sku="a"))])
async def test_a_deadlock_is_retried_in_a_new_transaction(database, stock, rpc, request_, error):
    stock.errors = [error("x"), error("x")]
    await getattr(stock, rpc)(request_, None)
    assert await effects(database) == stock.committed == ["effect-3"]


async def test_a_deadlock_that_does_not_end_is_raised(database, stock):
    stock.errors = [asyncpg.DeadlockDetectedError("x")] * 9
    with pytest.raises(asyncpg.DeadlockDetectedError):
        await stock.SetStock(set_stock(), None)
    assert await effects(database) == stock.committed == []


async def test_two_requests_that_deadlock_both_take_effect(database):
    """A real deadlock: each locks first what the other locks next."""
    await database.pool.execute("INSERT INTO note (id) VALUES ('a'), ('b')")
    meeting = asyncio.Barrier(2)

    class Crossing:
        db = database
        met = 0

        @transactional
        async def GetStock(self, request: pb.GetStockRequest, tx: Transaction) -> pb.Stock:
            first, second = request.sku, {"a": "b", "b": "a"}[request.sku]
            await tx.execute("UPDATE note SET body = body || '1' WHERE id = $1", first)
            if self.met < 2:
                self.met += 1
                await meeting.wait()
            await tx.execute("UPDATE note SET body = body || '1' WHERE id = $1", second)
            return pb.Stock()

    crossing = Crossing()
    await asyncio.gather(*(crossing.GetStock(pb.GetStockRequest(sku=sku), None) for sku in "ab"))
    assert await database.pool.fetchval("SELECT array_agg(DISTINCT body) FROM note") == ["11"]


async def test_twenty_equal_requests_at_once_have_one_effect(database, stock):
    replies = await asyncio.gather(*(stock.SetStock(set_stock(), None) for _ in range(20)))
    assert len({reply.etag for reply in replies}) == 1
    assert await effects(database) == stock.committed == [replies[0].etag]


async def test_a_served_handler_keeps_its_name_and_replays_over_the_wire(serve, connect, stock, issuer):
    assert Stock.SetStock.__name__ == "SetStock"
    assert Stock.SetStock.__doc__ == "With a request_id."
    metadata = (("x-shop-caller", "edge"), ("authorization", f"Bearer {issuer.token('staff-1', 'staff')}"))
    async with serve(SetStock=stock.SetStock) as app, connect(app.address) as client:
        replies = [await client.SetStock(set_stock(), metadata=metadata) for _ in range(2)]
    assert replies[0] == replies[1]
    assert len(stock.committed) == 1
