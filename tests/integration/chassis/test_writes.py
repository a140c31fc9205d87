"""Writes at the end of a transaction: in one statement, all or none, and shared by transactions that wait."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
import pytest

from chassis import Database, current_time
from chassis.context import Call, User, enter_call
from chassis.postgres.idempotency import idempotent
from chassis.postgres.writes import Writes
from chassis.testing import eventually
from shop.inventory.v1 import inventory_service_pb2 as pb
from shop.inventory.v1.inventory_errors import InsufficientStock
from tests.integration.database_control import (
    advance_clock,
    connected,
    fail_commits,
    held_commits,
    install_clock,
    until_blocked,
)

INSERT = "INSERT INTO note (id, body) SELECT * FROM unnest($1::text[], $2::text[])"
UPDATE = """
UPDATE note SET body = new.body FROM unnest($1::text[], $2::text[], $3::text[]) AS new (id, body, read)
WHERE note.id = new.id AND note.body = new.read"""


@pytest.fixture
async def rows(database_url):
    async with connected(database_url) as connection:
        yield connection


@pytest.fixture
def patient(monkeypatch):
    """A statement in flight is waited for, however long it takes."""
    monkeypatch.setattr("chassis.postgres.group_commit._PATIENCE_SECONDS", 60)


async def notes(database):
    return {row["id"]: row["body"] for row in await database.pool.fetch("SELECT id, body FROM note")}


@asynccontextmanager
async def watched(database_url, connections=5):
    """Lend a database, and the first words of what is sent to it."""
    sent = Counter()

    def count(record):
        if not record.query.startswith("SELECT pg_advisory_unlock_all"):  # a connection goes back to its pool
            sent[record.query.split()[0].rstrip(";")] += 1

    async def watch(connection):
        connection.add_query_logger(count)

    async with asyncpg.create_pool(database_url, min_size=1, max_size=connections, init=watch) as pool:
        yield Database(pool), sent


async def test_a_transaction_that_only_writes_is_one_statement(database_url):
    async with watched(database_url) as (database, sent):
        await write(database, ("warm", "1"))  # asyncpg learns the types
        sent.clear()
        async with database.transaction() as tx:
            assert await tx.fetchval("SELECT count(*) FROM note") == 1
            tx.write(INSERT, ("a", "1"), ("b", "1"))
            tx.write(INSERT, ("c", "1"))
        assert await notes(database) == {"warm": "1", "a": "1", "b": "1", "c": "1"}
    assert sent == {"SELECT": 2, "WITH": 1}


async def test_a_row_that_has_changed_since_it_was_read_keeps_all_others_from_being_written(database):
    await database.pool.execute("INSERT INTO note VALUES ('a', '1'), ('b', '1')")

    async def change():
        async with database.transaction() as tx:
            tx.write(UPDATE, ("a", "2", "1"), ("b", "2", "0"))
            tx.write(INSERT, ("c", "1"))

    with pytest.raises(asyncpg.SerializationError):
        await change()
    assert await notes(database) == {"a": "1", "b": "1"}


async def test_writes_are_read_by_later_statements_of_their_transaction(database):
    async with database.transaction() as tx:
        tx.write(INSERT, ("a", "1"))
        assert await tx.fetchval("SELECT body FROM note") == "1"
        tx.write(UPDATE, ("a", "2", "1"))
        tx.write(UPDATE, ("a", "3", "2"))
    assert await notes(database) == {"a": "3"}


async def test_writes_of_a_transaction_that_fails_are_dropped(database):
    async def fail():
        async with database.transaction() as tx:
            tx.write(INSERT, ("a", "1"))
            raise ValueError("own")

    with pytest.raises(ValueError, match="own"):
        await fail()
    assert await notes(database) == {}


@pytest.mark.parametrize(
    ("queries", "shared"),
    [
        ((INSERT, INSERT), True),
        ((UPDATE, INSERT), True),
        ((INSERT, UPDATE), False),
        ((UPDATE, UPDATE), False),
        ((UPDATE, "DELETE FROM other WHERE id = ANY($1::text[])"), True),
        ((f"{INSERT} ON CONFLICT (id) DO UPDATE SET body = 'x'",) * 2, False),
    ],
)
def test_a_statement_changes_no_row_twice(queries, shared):
    writes = Writes()
    writes.add(queries[0], [("a",)])
    assert writes.accepts(queries[1]) is shared


async def write(database, *rows, query=INSERT):
    async with database.transaction() as tx:
        tx.write(query, *rows)


async def test_transactions_that_wait_for_one_in_flight_share_the_next_statement(database_url, rows, patient):
    async with watched(database_url) as (database, sent):
        await write(database, ("warm", "1"))
        sent.clear()
        async with held_commits(rows, "note"):
            first = asyncio.create_task(write(database, ("first", "1")))
            await until_blocked(rows)
            others = [asyncio.create_task(write(database, (str(number), "1"))) for number in range(20)]
            await eventually(lambda: len(database._group._waiting) == 20)
        await asyncio.gather(first, *others)
        assert len(await notes(database)) == 22
        assert sent["WITH"] == 2


async def test_transactions_that_have_read_do_not_keep_the_connections_that_their_commits_need(database_url):
    async with watched(database_url, connections=2) as (database, _):
        all_have_read = asyncio.Barrier(2)

        async def read_and_write(name):
            async with database.transaction() as tx:
                assert await tx.fetchval("SELECT count(*) FROM note") == 0
                await all_have_read.wait()
                tx.write(INSERT, (name, "1"))

        await asyncio.gather(read_and_write("a"), read_and_write("b"))
        assert await notes(database) == {"a": "1", "b": "1"}


async def test_a_transaction_that_fails_fails_no_other_that_shares_its_statement(database_url, rows, patient):
    async with watched(database_url) as (database, _sent):
        await write(database, ("taken", "1"))
        async with held_commits(rows, "note"):
            first = asyncio.create_task(write(database, ("first", "1")))
            await until_blocked(rows)
            good = [asyncio.create_task(write(database, (str(number), "1"))) for number in range(5)]
            bad = asyncio.create_task(write(database, ("taken", "1")))
            stale = asyncio.create_task(write(database, ("taken", "2", "0"), query=UPDATE))
            await eventually(lambda: len(database._group._waiting) == 7)
        await asyncio.gather(first, *good)
        with pytest.raises(asyncpg.UniqueViolationError):
            await bad
        with pytest.raises(asyncpg.SerializationError):
            await stale
        assert (await notes(database)).keys() == {"taken", "first", *"01234"}


async def test_a_transaction_that_waits_for_a_lock_does_not_keep_others_waiting(database, rows):
    await write(database, ("locked", "1"))
    async with rows.transaction():
        await rows.execute("UPDATE note SET body = '1'")
        blocked = asyncio.create_task(write(database, ("locked", "2", "1"), query=UPDATE))
        await until_blocked(rows)
        await asyncio.gather(*(write(database, (str(number), "1")) for number in range(20)))
        assert not blocked.done()
    await blocked
    assert (await notes(database))["locked"] == "2"


async def test_a_write_cancelled_at_any_time_commits_or_not_and_leaks_nothing(database):
    told = {}

    async def note(number):
        await write(database, (str(number), "1"))
        told[str(number)] = True

    tasks = [asyncio.create_task(note(number)) for number in range(200)]
    for turn, task in enumerate(tasks):
        if turn % 3 == 0:
            await asyncio.sleep(0)
        if turn % 2:
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert told.keys() <= (await notes(database)).keys()
    assert len(told) >= 100
    await eventually(lambda: database.pool.get_idle_size() == database.pool.get_size())


async def test_an_estimate_of_the_clock_that_is_wrong_is_a_conflict(database_url, rows):
    await install_clock(rows)

    async def write_now(database):
        async with database.transaction(optimistic=True) as tx:
            now = await current_time(tx)
            tx.write(INSERT, (now.isoformat(), "1"))
            return now

    async with Database.open(database_url) as database:
        before = await write_now(database)
        assert await write_now(database) - before < timedelta(minutes=1)
        await advance_clock(rows, timedelta(hours=1))
        with pytest.raises(asyncpg.SerializationError):
            await write_now(database)
        assert await write_now(database) - before > timedelta(minutes=59)
        assert len(await notes(database)) == 3


async def test_a_crash_before_the_commit_leaves_the_key_free(database, monkeypatch):
    enter_call(Call(method="/shop.X/Change", caller="edge", user=User(id="user-1")))

    async def change(tx):
        tx.write(INSERT, ("a", "1"))
        return pb.StockLevel(etag="1")

    async def crash(*_):
        raise ConnectionResetError

    request = pb.SetStockRequest(sku="a", location_id="bkk", request_id="k")
    with monkeypatch.context() as crashing:
        crashing.setattr(database._group, "_execute", crash)
        with pytest.raises(ConnectionResetError):
            await idempotent(database, request, pb.StockLevel, change)
    assert await notes(database) == {}
    assert await idempotent(database, request, pb.StockLevel, change) == pb.StockLevel(etag="1")
    assert await idempotent(database, request, pb.StockLevel, change) == pb.StockLevel(etag="1")
    assert await notes(database) == {"a": "1"}
    enter_call(None)


async def test_a_crash_between_a_rollback_and_its_stored_error_leaves_the_key_free(database, rows):
    enter_call(Call(method="/shop.X/Change", caller="edge", user=User(id="user-1")))
    errors = [InsufficientStock(available="a=1")]

    async def change(tx):
        tx.write(INSERT, ("a", "1"))
        if errors:
            raise errors.pop()
        return pb.StockLevel(etag="1")

    request = pb.SetStockRequest(sku="a", location_id="bkk", request_id="k")
    await fail_commits(rows, "idempotency")
    with pytest.raises(asyncpg.RaiseError):
        await idempotent(database, request, pb.StockLevel, change)
    await rows.execute("DROP TRIGGER at_commit ON idempotency")
    assert await notes(database) == {}
    assert await idempotent(database, request, pb.StockLevel, change) == pb.StockLevel(etag="1")
    enter_call(None)


async def test_a_key_that_is_taken_while_a_change_fails_has_the_result_of_the_other(database):
    """An error is stored after a rollback: another request with the key may commit between the two."""
    enter_call(Call(method="/shop.X/Change", caller="edge", user=User(id="user-1")))
    request = pb.SetStockRequest(sku="a", location_id="bkk", request_id="k")

    async def first(tx):
        tx.write(INSERT, ("a", "1"))
        return pb.StockLevel(etag="first")

    async def late(tx):
        await idempotent(database, request, pb.StockLevel, first)
        raise InsufficientStock(available="a=1")

    assert await idempotent(database, request, pb.StockLevel, late) == pb.StockLevel(etag="first")
    enter_call(None)
