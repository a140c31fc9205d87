"""Consuming events: each is applied once, a poison event is dead-lettered and blocks no others."""

import asyncio
import uuid
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
import pytest

from chassis import Database, current_call
from chassis.cancellation import cancel_and_wait
from chassis.events import dead_letters
from chassis.events.bus import Event
from chassis.events.consumer import Consumer
from chassis.events.redis_bus import RedisBus
from chassis.postgres.database import _SESSION_SETTINGS
from chassis.testing import eventually
from shop.inventory.v1 import inventory_events_pb2 as events
from shop.inventory.v1 import inventory_service_pb2 as pb

TOPIC = "shop.inventory.v1.Stock"


def stock_changed(sku="a", available=0, **changes):
    attributes = {
        "id": str(uuid.uuid4()),
        "type": "shop.inventory.v1.StockChanged",
        "topic": TOPIC,
        "key": sku,
        "source": "svc_inventory",
        "time": "2026-01-01T00:00:00Z",
        "payload": events.StockChanged(sku=sku, available=available).SerializeToString(),
    }
    return Event(**attributes | changes)


class Projection:
    """A handler that records its events in order, and fails for those that a test names."""

    def __init__(self):
        self.attempts = []
        self.troubles = {}

    async def on_stock_changed(self, tx, event):
        self.attempts.append(event.sku)
        await tx.execute("INSERT INTO applied (what) VALUES ($1)", f"{event.sku}={event.available}")
        if trouble := self.troubles.get(event.sku):
            raise trouble.pop() if isinstance(trouble, list) else trouble


@pytest.fixture
async def database(database):
    await database.pool.execute("CREATE TABLE applied (id bigint GENERATED ALWAYS AS IDENTITY, what text NOT NULL)")
    return database


@pytest.fixture
async def bus(redis_url, event_prefix):
    async with RedisBus.open(redis_url, event_prefix) as bus:
        yield bus


@pytest.fixture
def projection():
    return Projection()


@asynccontextmanager
async def consuming(database, bus, projection, name="svc_toy"):
    handlers = {events.StockChanged: projection.on_stock_changed}
    consumer = Consumer(name, database, bus, handlers, retry_seconds=0.5)
    tasks = [asyncio.create_task(work) for work in (consumer.run(), consumer.redrive())]
    try:
        yield tasks
        assert not any(task.done() for task in tasks), "background work has ended"
    finally:
        await cancel_and_wait(*tasks)


async def applied(database):
    return [row["what"] for row in await database.pool.fetch("SELECT what FROM applied ORDER BY id")]


async def buried(database):
    return [dict(row) for row in await database.pool.fetch("SELECT * FROM dead_letter ORDER BY create_time")]


async def pending(bus, group="svc_toy"):
    """Events delivered to the group and not acknowledged."""
    return (await bus._client.xpending(bus._prefix + TOPIC, group))["pending"]


async def everything_is_acknowledged(bus, group="svc_toy"):
    last = (await bus._client.xinfo_stream(bus._prefix + TOPIC))["last-generated-id"]
    groups = {about["name"].decode(): about for about in await bus._client.xinfo_groups(bus._prefix + TOPIC)}
    return group in groups and (groups[group]["pending"], groups[group]["last-delivered-id"]) == (0, last)


async def test_events_are_applied_in_order_and_acknowledged(database, bus, projection):
    async with consuming(database, bus, projection):
        await bus.publish([stock_changed(available=number) for number in range(20)])
        await eventually(lambda: everything_is_acknowledged(bus))
    assert await applied(database) == [f"a={number}" for number in range(20)]


async def test_an_event_delivered_twice_is_applied_once(database, bus, projection):
    first, second = stock_changed(available=1), stock_changed(available=2)
    async with consuming(database, bus, projection):
        await bus.publish([first, first, second])
        await bus.publish([first, second])
        await eventually(lambda: everything_is_acknowledged(bus))
    assert await applied(database) == ["a=1", "a=2"]


async def test_two_consumers_each_apply_an_event_once(database, bus):
    event = stock_changed(available=1)
    projections = {"svc_one": Projection(), "svc_two": Projection()}
    async with (
        consuming(database, bus, projections["svc_one"], "svc_one"),
        consuming(database, bus, projections["svc_two"], "svc_two"),
    ):
        await bus.publish([event, event])
        for name in projections:
            await eventually(lambda name=name: everything_is_acknowledged(bus, name))
    assert await applied(database) == ["a=1", "a=1"]


async def test_two_processes_of_a_service_together_apply_an_event_once(database_url, database, bus, projection):
    async with (
        Database.open(database_url) as other,
        consuming(database, bus, projection),
        consuming(other, bus, projection),
    ):
        sent = [stock_changed(available=number) for number in range(30)]
        await bus.publish(sent)
        await bus.publish(sent)
        await eventually(lambda: everything_is_acknowledged(bus))
    assert await applied(database) == [f"a={number}" for number in range(30)]


async def test_failed_attempts_of_a_handler_leave_no_effect(database, bus, projection):
    projection.troubles["a"] = [LookupError("x"), ValueError("x")]
    async with consuming(database, bus, projection):
        await bus.publish([stock_changed("a", 1), stock_changed("b", 1)])
        await eventually(lambda: everything_is_acknowledged(bus))
    assert projection.attempts == ["a", "a", "a", "b"]
    assert await applied(database) == ["a=1", "b=1"]
    assert await buried(database) == []


async def test_a_poison_event_is_dead_lettered_with_its_error_and_blocks_no_others(database, bus, projection, log):
    projection.troubles["poison"] = ValueError("canary")
    event = stock_changed("poison", 1, traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01")
    async with consuming(database, bus, projection):
        await bus.publish([event, stock_changed("b", 1)])
        await eventually(lambda: everything_is_acknowledged(bus))
    assert await applied(database) == ["b=1"]
    (letter,) = await buried(database)
    assert letter["attempts"] == projection.attempts.count("poison") >= 3
    assert "ValueError: canary" in letter["error"]
    kept = {name: letter[name] for name in ("consumer", "topic", "key", "type", "payload", "traceparent")}
    assert kept == {
        "consumer": "svc_toy",
        "topic": TOPIC,
        "key": "poison",
        "type": event.type,
        "payload": event.payload,
        "traceparent": event.traceparent,
    }
    assert str(letter["event_id"]) == event.id
    assert log.lines("event dead-lettered")[0]["event"] == event.id


@pytest.mark.parametrize(
    ("changes", "retried"),
    [
        ({"payload": b"\xff\xff\xff"}, False),
        ({"type": ""}, False),
        ({"type": "", "key": "a\0b", "traceparent": "\0"}, False),
        ({"payload": events.StockChanged(sku="nul").SerializeToString().replace(b"nul", b"n\0l")}, True),
    ],
    ids=["payload that is no message", "no type", "no type and NUL", "NUL in a text"],
)
async def test_an_undecodable_event_is_dead_lettered_without_retries(database, bus, projection, changes, retried):
    async with consuming(database, bus, projection):
        await bus.publish([stock_changed(**changes), stock_changed("b", 1)])
        await eventually(lambda: everything_is_acknowledged(bus))
    assert await applied(database) == ["b=1"]
    (letter,) = await buried(database)
    assert letter["attempts"] >= 3 if retried else letter["attempts"] == 1


async def test_a_poison_event_delivered_again_is_dead_lettered_once(database, bus, projection):
    """As after a crash between dead-lettering and acknowledging it."""
    poison = stock_changed(payload=b"\xff\xff\xff")
    async with consuming(database, bus, projection):
        await bus.publish([poison, poison, stock_changed("b", 1)])
        await eventually(lambda: everything_is_acknowledged(bus))
    assert await applied(database) == ["b=1"]
    assert len(await buried(database)) == 1


@pytest.mark.parametrize(
    "trouble",
    [
        ConnectionResetError(),
        asyncpg.LockNotAvailableError("55P03"),
        asyncpg.ReadOnlySQLTransactionError("25006"),
        asyncpg.SerializationError("40001"),
        asyncpg.DeadlockDetectedError("40P01"),
        asyncpg.PostgresIOError("58030"),
        asyncpg.QueryCanceledError("57014"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_trouble_of_the_database_never_dead_letters_an_event(database, bus, projection, monkeypatch, trouble):
    """Or an event delivered during an outage, or beside a lock of a migration, would be lost to its consumer."""
    monkeypatch.setattr("chassis.events.consumer._FIRST_PAUSE", timedelta(milliseconds=1))
    monkeypatch.setattr("chassis.events.consumer._LONGEST_PAUSE", timedelta(milliseconds=60))
    projection.troubles["a"] = [trouble for _ in range(12)]
    async with consuming(database, bus, projection):
        await bus.publish([stock_changed("a", 1), stock_changed("b", 1)])
        await eventually(lambda: everything_is_acknowledged(bus))
    assert projection.attempts == ["a"] * 13 + ["b"]
    assert await applied(database) == ["a=1", "b=1"]
    assert await buried(database) == []


async def test_an_error_text_with_a_nul_is_dead_lettered(database, bus, projection):
    projection.troubles["a"] = ValueError("n\0l" + "x" * 5000)
    async with consuming(database, bus, projection):
        await bus.publish([stock_changed("a"), stock_changed("b", 1)])
        await eventually(lambda: everything_is_acknowledged(bus))
    assert await applied(database) == ["b=1"]
    assert len((await buried(database))[0]["error"]) <= 1000


async def test_records_that_are_no_events_are_dead_lettered_and_block_no_others(database, bus, projection):
    await bus._client.xadd(bus._prefix + TOPIC, {"hello": "world"})
    await bus._client.xadd(bus._prefix + TOPIC, {b"\xff": b"\0\xff"})
    async with consuming(database, bus, projection):
        await bus.publish([stock_changed("b", 1)])
        await eventually(lambda: everything_is_acknowledged(bus))
    assert await applied(database) == ["b=1"]
    assert len(await buried(database)) == 2


async def test_events_without_a_handler_are_skipped(database, bus, projection):
    async with consuming(database, bus, projection):
        await bus.publish([stock_changed(type="shop.inventory.v1.StockCounted"), stock_changed("b", 1)])
        await eventually(lambda: everything_is_acknowledged(bus))
    assert await applied(database) == ["b=1"]
    assert await database.pool.fetchval("SELECT count(*) FROM inbox") == 1
    assert await buried(database) == []


async def test_an_event_is_applied_in_the_trace_that_caused_it_and_for_no_user(database, bus):
    seen = []

    class Tracing(Projection):
        async def on_stock_changed(self, *_):
            seen.append(current_call())

    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    async with consuming(database, bus, Tracing()):
        await bus.publish([stock_changed(traceparent=trace), stock_changed(traceparent="nonsense")])
        await eventually(lambda: everything_is_acknowledged(bus))
    assert seen[0].traceparent == trace
    assert (seen[0].user, seen[0].authorization, seen[0].caller) == (None, "", "")
    assert len(seen[1].traceparent) == len(trace)


async def test_an_event_of_a_cancelled_consumer_is_applied_by_the_next(database, bus):
    began = asyncio.Event()

    class Slow(Projection):
        async def on_stock_changed(self, tx, event):
            await super().on_stock_changed(tx, event)
            began.set()
            await asyncio.Event().wait()

    await bus.publish([stock_changed("a", 1)])
    async with consuming(database, bus, Slow()):
        await began.wait()
    assert await applied(database) == []
    assert await pending(bus) == 1
    async with consuming(database, bus, Projection()):
        await eventually(lambda: everything_is_acknowledged(bus))
    assert await applied(database) == ["a=1"]


async def test_events_that_wait_are_applied_in_one_transaction(database, bus, projection):
    await bus.publish([stock_changed(sku, number) for number in range(5) for sku in ("a", "b")])
    async with consuming(database, bus, projection):
        await eventually(lambda: everything_is_acknowledged(bus))
    assert await applied(database) == [f"{sku}={number}" for number in range(5) for sku in ("a", "b")]
    assert await database.pool.fetchval("SELECT count(DISTINCT xmin::text) FROM applied") == 1


async def test_a_poison_event_fails_none_of_those_that_wait_with_it(database, bus, projection):
    projection.troubles["poison"] = ValueError("canary")
    sent = [stock_changed(sku, 1) for sku in ("a", "poison", "b", "a")]
    await bus.publish([*sent, *sent])
    async with consuming(database, bus, projection):
        await eventually(lambda: everything_is_acknowledged(bus))
    assert await applied(database) == ["a=1", "b=1", "a=1"]
    assert [letter["key"] for letter in await buried(database)] == ["poison"]


async def test_a_dead_letter_that_is_delivered_again_with_others_stays_dead(database, bus, projection):
    poison = stock_changed(payload=b"\xff\xff\xff")
    async with consuming(database, bus, projection):
        await bus.publish([poison])
        await eventually(lambda: everything_is_acknowledged(bus))
    fixed = stock_changed("a", 1, id=poison.id)
    await bus.publish([fixed, stock_changed("b", 1)])
    async with consuming(database, bus, projection):
        await eventually(lambda: everything_is_acknowledged(bus))
    assert await applied(database) == ["b=1"]


async def test_an_event_whose_id_is_written_in_capitals_is_applied_among_others(database, bus, projection):
    await bus.publish([stock_changed("a", 1, id=str(uuid.uuid4()).upper()), stock_changed("b", 1)])
    async with consuming(database, bus, projection):
        await eventually(lambda: everything_is_acknowledged(bus))
    assert await applied(database) == ["a=1", "b=1"]


async def test_events_of_a_consumer_that_is_cancelled_among_them_are_all_applied_by_the_next(database, bus):
    began = asyncio.Event()

    class Slow(Projection):
        async def on_stock_changed(self, tx, event):
            await super().on_stock_changed(tx, event)
            if event.sku == "b":
                began.set()
                await asyncio.Event().wait()

    await bus.publish([stock_changed("a", 1), stock_changed("b", 1)])
    async with consuming(database, bus, Slow()):
        await began.wait()
    assert await applied(database) == []
    async with consuming(database, bus, Projection()):
        await eventually(lambda: everything_is_acknowledged(bus))
    assert await applied(database) == ["a=1", "b=1"]


async def test_each_of_several_events_is_applied_in_its_own_trace(database, bus):
    seen = []

    class Tracing(Projection):
        async def on_stock_changed(self, *_):
            seen.append(current_call().traceparent)

    traces = [f"00-{number:032x}-{number:016x}-01" for number in (1, 2, 3)]
    await bus.publish([stock_changed(traceparent=trace) for trace in traces])
    async with consuming(database, bus, Tracing()):
        await eventually(lambda: everything_is_acknowledged(bus))
    assert seen == traces


@pytest.fixture
async def small(database_url, monkeypatch):
    """A database with one connection and a short timeout for it."""
    async with Database.open(database_url, connections=1) as small:
        monkeypatch.setattr("chassis.postgres.database._ACQUIRE_SECONDS", 0.05)
        yield small


async def test_a_full_pool_is_no_attempt_of_the_event(database, small, bus, projection, log):
    async with consuming(small, bus, projection):
        async with small.connection():
            await bus.publish([stock_changed("a", 1)])
            await eventually(lambda: len(log.lines("consumer restarts")) >= 3)
            assert await pending(bus) == 1
        await eventually(lambda: everything_is_acknowledged(bus))
    assert await applied(database) == ["a=1"]
    assert projection.attempts == ["a"]
    assert {"Overloaded()"} == {line["error"] for line in log.lines("consumer restarts")}


async def test_a_handler_of_a_message_that_is_no_event_is_rejected_at_construction(database, bus, projection):
    with pytest.raises(KeyError):
        Consumer("svc_toy", database, bus, {pb.Stock: projection.on_stock_changed})


async def test_a_locked_table_delays_an_event_and_does_not_dead_letter_it(
    database_url, database, bus, projection, monkeypatch
):
    """CREATE INDEX holds such a lock for as long as it takes."""
    monkeypatch.setitem(_SESSION_SETTINGS, "lock_timeout", "50")
    async with Database.open(database_url) as hasty, consuming(hasty, bus, projection):
        async with database.transaction() as tx:
            await tx.execute("LOCK TABLE applied IN SHARE MODE")
            await bus.publish([stock_changed("a", 1)])
            await eventually(lambda: len(projection.attempts) >= 4)
            assert await pending(bus) == 1
        await eventually(lambda: everything_is_acknowledged(bus))
    assert await applied(database) == ["a=1"]
    assert await buried(database) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "svc_catalog"},
        {"source": ""},
        {"type": "shop.inventory.v1.StockChanged", "topic": "shop.inventory.v1.Reservation"},
    ],
    ids=["another service", "no service", "another topic"],
)
async def test_an_event_that_the_owner_of_its_topic_did_not_publish_is_rejected(
    database, bus, projection, log, changes
):
    handlers = {events.StockChanged: projection.on_stock_changed, events.ReservationHeld: projection.on_stock_changed}
    consumer = asyncio.create_task(Consumer("svc_toy", database, bus, handlers).run())
    forged = stock_changed("a", 7, **changes)
    await bus.publish([forged, stock_changed("b", 1)])
    await eventually(lambda: everything_is_acknowledged(bus))
    await eventually(lambda: len(log.lines("event rejected: not published by the owner of its topic")) == 1)
    await cancel_and_wait(consumer)
    assert await applied(database) == ["b=1"]
    assert await buried(database) == []


async def test_a_dead_letter_is_redriven_on_request_and_once(database, bus, projection, log):
    projection.troubles["a"] = ValueError("canary")
    feed = asyncio.create_task(database.change_feed.listen(database.pool))
    event = stock_changed("a", 1)
    async with consuming(database, bus, projection):
        await bus.publish([event, stock_changed("b", 1)])
        await eventually(lambda: everything_is_acknowledged(bus))
        assert await request_redrive(database, event.id) == 1
        await eventually(lambda: log.lines("redrive failed"))
        (letter,) = await eventually(lambda: buried(database), lambda rows: rows[0]["redrive_request_time"] is None)
        assert letter["redrive_time"] is None

        projection.troubles.clear()
        await bus.publish([event])  # as after a crash: it is left to the operator
        await eventually(lambda: everything_is_acknowledged(bus))
        assert await applied(database) == ["b=1"]

        assert await request_redrive(database, None) == 1
        await eventually(lambda: buried(database), lambda rows: rows[0]["redrive_time"] is not None)
        assert await applied(database) == ["b=1", "a=1"]
        assert await request_redrive(database, event.id) == 0
        await bus.publish([event])
        await eventually(lambda: everything_is_acknowledged(bus))
    await cancel_and_wait(feed)
    assert await applied(database) == ["b=1", "a=1"]


async def request_redrive(database, event_id):
    async with database.transaction() as tx:
        return await dead_letters.request_redrive(tx, event_id)
