"""Idempotency: a change takes effect once, and each repetition gets the first reply, also of concurrent ones."""

import asyncio

import asyncpg
import pytest

from chassis import Database, idempotent
from chassis.context import Call, User, current_call, enter_call
from chassis.postgres.idempotency import is_replay, stored_reply
from chassis.testing import eventually
from shop.chassis.v1.chassis_errors import IdempotencyKeyReused, OperationInFlight
from shop.inventory.v1 import inventory_service_pb2 as pb
from shop.inventory.v1.inventory_errors import InsufficientStock
from tests.integration.database_control import connected, held_commits, until_blocked

KEY = "INSERT INTO idempotency (principal, method, key, request_hash, response) VALUES ($1, $2, $3, '', '')"


def request(key="k-1", sku="a", on_hand=1):
    return pb.SetStockRequest(sku=sku, location_id="bkk", on_hand=on_hand, request_id=key)


class Change:
    """A change that leaves a row for each time that it took effect."""

    def __init__(self, database):
        self.database = database
        self.error = None
        self.runs = 0

    async def __call__(self, tx):
        self.runs += 1
        effect = f"effect-{self.runs}"
        await tx.execute("INSERT INTO note (id) VALUES ($1)", effect)
        if self.error:
            raise self.error
        return pb.StockLevel(etag=effect)

    async def effects(self):
        return await self.database.pool.fetchval("SELECT count(*) FROM note")


@pytest.fixture
def change(database):
    return Change(database)


@pytest.fixture
async def rows(database_url):
    async with connected(database_url) as connection:
        yield connection


@pytest.fixture(autouse=True)
def call():
    """A call of a user, as the pipeline sets it."""
    enter(user_id="user-1")
    yield
    enter_call(None)


def enter(user_id="user-1", method="/shop.X/Change", caller="edge"):
    enter_call(Call(method=method, caller=caller, user=User(id=user_id) if user_id else None))


async def test_a_repeated_request_gets_the_first_reply(database, change):
    first = await idempotent(database, request(), pb.StockLevel, change)
    assert "idempotent-replayed" not in current_call().trailers
    assert not is_replay()
    assert await idempotent(database, request(), pb.StockLevel, change) == first
    assert current_call().trailers["idempotent-replayed"] == "true"
    assert is_replay()
    assert await change.effects() == 1


async def test_another_request_with_the_same_key_is_rejected(database, change):
    await idempotent(database, request(), pb.StockLevel, change)
    with pytest.raises(IdempotencyKeyReused):
        await idempotent(database, request(on_hand=2), pb.StockLevel, change)
    assert await change.effects() == 1


async def test_an_error_is_stored_and_its_changes_are_rolled_back(database, change):
    change.error = InsufficientStock(available="a=1")
    with pytest.raises(InsufficientStock):
        await idempotent(database, request(), pb.StockLevel, change)
    change.error = None
    with pytest.raises(InsufficientStock) as again:
        await idempotent(database, request(), pb.StockLevel, change)
    assert again.value.metadata == {"available": "a=1"}
    assert await change.effects() == 0


@pytest.mark.parametrize("error", [ValueError("x"), OSError("x"), asyncpg.UniqueViolationError("x")], ids=repr)
async def test_an_unexpected_error_frees_the_key(database, change, error):
    change.error = error
    with pytest.raises(type(error)):
        await idempotent(database, request(), pb.StockLevel, change)
    change.error = None
    assert (await idempotent(database, request(), pb.StockLevel, change)).etag == "effect-2"
    assert await change.effects() == 1


async def test_a_cancelled_change_frees_the_key(database, change):
    async def never(tx):
        await change(tx)
        await asyncio.Event().wait()

    going = asyncio.create_task(idempotent(database, request(), pb.StockLevel, never))
    await eventually(lambda: change.runs)
    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going
    assert (await idempotent(database, request(), pb.StockLevel, change)).etag == "effect-2"
    assert await change.effects() == 1


async def test_twenty_requests_at_once_have_one_effect_and_one_reply(database, change):
    answers = await asyncio.gather(*(idempotent(database, request(), pb.StockLevel, change) for _ in range(20)))
    assert len({answer.etag for answer in answers}) == 1
    assert [row["id"] for row in await database.pool.fetch("SELECT id FROM note")] == [answers[0].etag]


async def test_twenty_requests_at_once_have_one_error(database, change):
    change.error = InsufficientStock(available="a=1")
    outcomes = await asyncio.gather(
        *(idempotent(database, request(), pb.StockLevel, change) for _ in range(20)), return_exceptions=True
    )
    assert {type(outcome) for outcome in outcomes} == {InsufficientStock}
    assert await change.effects() == 0
    assert await database.pool.fetchval("SELECT count(*) FROM idempotency") == 1


async def test_a_request_that_waits_for_one_that_fails_is_carried_out(database, rows, change):
    first = rows.transaction()
    await first.start()
    await rows.execute(KEY, "user-1", "/shop.X/Change", "k-1")
    second = asyncio.create_task(idempotent(database, request(), pb.StockLevel, change))
    await until_blocked(rows)
    await first.rollback()
    assert (await second).etag == "effect-1"


async def test_a_request_that_waits_too_long_for_the_first_is_in_flight(database_url, rows, change):
    async with (
        held_commits(rows, "note"),
        asyncpg.create_pool(database_url, server_settings={"lock_timeout": "100"}) as pool,
    ):
        first = asyncio.create_task(idempotent(change.database, request(), pb.StockLevel, change))
        await until_blocked(rows)
        with pytest.raises(OperationInFlight):
            await idempotent(Database(pool), request(), pb.StockLevel, change)
    assert await first == await idempotent(change.database, request(), pb.StockLevel, change)
    assert await change.effects() == 1


@pytest.mark.parametrize(
    "other",
    [{"user_id": "user-2"}, {"method": "/shop.X/Other"}, {"user_id": "", "caller": "svc_order"}],
    ids=["of another user", "of another method", "of a workload"],
)
async def test_a_key_belongs_to_its_principal_and_method(database, change, other):
    """For another principal it is a new one, and reveals nothing about the first."""
    mine = await idempotent(database, request(), pb.StockLevel, change)
    enter(**other)
    assert await stored_reply(database, request(), pb.StockLevel) is None
    theirs = await idempotent(database, request(on_hand=9), pb.StockLevel, change)
    assert (mine.etag, theirs.etag) == ("effect-1", "effect-2")


async def test_a_key_of_one_workload_is_new_to_another(database, change):
    for caller in ("svc_order", "svc_catalog"):
        enter(user_id="", caller=caller)
        await idempotent(database, request(), pb.StockLevel, change)
    assert change.runs == 2


async def test_stored_reply_returns_the_first_reply_or_error(database, change):
    first = await idempotent(database, request(), pb.StockLevel, change)
    assert await stored_reply(database, request(), pb.StockLevel) == first
    assert current_call().trailers["idempotent-replayed"] == "true"
    with pytest.raises(IdempotencyKeyReused):
        await stored_reply(database, request(on_hand=2), pb.StockLevel)
    change.error = InsufficientStock(available="a=1")
    with pytest.raises(InsufficientStock):
        await idempotent(database, request("k-2"), pb.StockLevel, change)
    with pytest.raises(InsufficientStock):
        await stored_reply(database, request("k-2"), pb.StockLevel)


@pytest.mark.parametrize("error", [asyncpg.DeadlockDetectedError, asyncpg.SerializationError])
async def test_a_deadlock_is_retried(database, change, error):
    troubles = [error("x"), error("x")]

    async def troubled(tx):
        reply = await change(tx)
        if troubles:
            raise troubles.pop()
        return reply

    assert (await idempotent(database, request(), pb.StockLevel, troubled)).etag == "effect-3"
    assert await change.effects() == 1


async def test_two_changes_that_deadlock_both_take_effect(database):
    """A real one: each locks first what the other locks next."""
    await database.pool.execute("INSERT INTO note (id) VALUES ('a'), ('b')")
    both = asyncio.Barrier(2)

    def locking(first, second):
        meet = True

        async def change(tx):
            nonlocal meet
            await tx.execute("UPDATE note SET body = body || '1' WHERE id = $1", first)
            if meet:
                meet = False
                await both.wait()
            await tx.execute("UPDATE note SET body = body || '1' WHERE id = $1", second)
            return pb.StockLevel(etag=first)

        return change

    answers = await asyncio.gather(
        idempotent(database, request("k-1"), pb.StockLevel, locking("a", "b")),
        idempotent(database, request("k-2"), pb.StockLevel, locking("b", "a")),
    )
    assert [answer.etag for answer in answers] == ["a", "b"]
    assert await database.pool.fetchval("SELECT array_agg(DISTINCT body) FROM note") == ["11"]


async def test_a_deadlock_that_does_not_end_is_raised(database):
    async def hopeless(tx):
        raise asyncpg.DeadlockDetectedError("x")

    with pytest.raises(asyncpg.DeadlockDetectedError):
        await idempotent(database, request(), pb.StockLevel, hopeless)


async def test_outside_of_a_call_there_is_no_principal(database, change):
    enter_call(None)
    with pytest.raises(LookupError):
        await idempotent(database, request(), pb.StockLevel, change)


@pytest.mark.parametrize("refused", [False, True])
async def test_a_replay_is_marked_in_the_trailers(serve, connect, database, issuer, refused):
    change = Change(database)
    if refused:
        change.error = InsufficientStock(available="a=1")

    async def set_stock(message, context):
        return await idempotent(database, message, pb.StockLevel, change)

    metadata = (("x-shop-caller", "edge"), ("authorization", f"Bearer {issuer.token('staff-1', 'staff')}"))
    async with serve(SetStock=set_stock) as app, connect(app.address) as client:
        replayed = []
        for _ in range(2):
            going = client.SetStock(request(), metadata=metadata)
            await asyncio.gather(going, return_exceptions=True)
            trailers = await going.trailing_metadata()
            replayed.append(dict(trailers).get("idempotent-replayed"))
    assert replayed == [None, "true"]


async def waits_for_a_lock(database):
    return await database.pool.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted")
