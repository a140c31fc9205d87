"""The relay: a frozen leader is replaced, and what the bus loses is published again."""

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from chassis import outbox
from chassis.cancellation import cancel_and_wait
from chassis.events.bus import EventsLost
from chassis.events.consumer import Consumer
from chassis.events.redis_bus import RedisBus
from chassis.events.relay import Relay
from chassis.postgres.change_feed import CHANNEL
from chassis.testing import eventually
from shop.inventory.v1 import inventory_events_pb2 as events

TOPIC = "shop.inventory.v1.Stock"

RELAY = """
import asyncio, sys
from chassis import Database
from chassis.events.redis_bus import RedisBus
from chassis.events.relay import Relay

async def main(url, redis, prefix):
    async with Database.open(url) as database, RedisBus.open(redis, prefix) as bus:
        await Relay(database, bus, "svc_inventory").run()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
async def bus(redis_url, event_prefix):
    async with RedisBus.open(redis_url, event_prefix) as bus:
        yield bus


@pytest.fixture
def quick(monkeypatch):
    """The bus is checked all the time."""
    monkeypatch.setattr("chassis.events.relay._CHECK_SECONDS", 0.0)
    monkeypatch.setattr("chassis.events.relay._POLL_SECONDS", 0.05)


@asynccontextmanager
async def relaying(database, bus):
    task = asyncio.create_task(Relay(database, bus, "svc_inventory").run())
    try:
        yield task
    finally:
        await cancel_and_wait(task)


@asynccontextmanager
async def consuming(database, bus, applied):
    async def apply(_tx, event):
        applied.append(event.available)

    task = asyncio.create_task(Consumer("svc_toy", database, bus, {events.StockChanged: apply}).run())
    try:
        yield
    finally:
        await cancel_and_wait(task)


async def add(database, *figures):
    async with database.transaction() as tx:
        await outbox.add(tx, *(events.StockChanged(sku="a", available=figure) for figure in figures))


async def is_drained(database):
    return not await database.pool.fetchval("SELECT count(*) FROM outbox WHERE publish_time IS NULL")


async def is_acknowledged(database):
    return await database.pool.fetchval("SELECT acknowledge_time > (SELECT max(publish_time) FROM outbox) FROM relay")


@pytest.fixture
async def child(database_url, redis_url, event_prefix, repository):
    """A relay in a process of its own."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", RELAY, database_url, redis_url, event_prefix),
        cwd=repository,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((".", "gen"))},
    )
    yield child
    child.kill()
    await child.wait()


async def test_a_frozen_leader_is_replaced_within_five_seconds(database, bus, child):
    await add(database, 1)
    await eventually(lambda: is_drained(database))
    child.send_signal(signal.SIGSTOP)
    frozen = await database.pool.fetchval("SELECT holder FROM relay")
    async with relaying(database, bus):
        await add(database, 2)
        await eventually(lambda: is_drained(database), seconds=5.5)
        child.send_signal(signal.SIGCONT)
        await add(database, 3)
        await eventually(lambda: is_drained(database))
        assert await database.pool.fetchval("SELECT holder FROM relay") not in ("", frozen)


async def test_a_relay_that_has_lost_its_lease_marks_nothing_as_published(database, bus, monkeypatch, log):
    """What it published before a pause may be lost since, and published again by the next leader."""
    publish = bus.publish

    async def publish_slowly(sent, positions):
        done = await publish(sent, positions)
        await database.pool.execute(
            "UPDATE relay SET holder = 'another', lease_expire_time = now() + interval '1 hour'"
        )
        return done

    monkeypatch.setattr(bus, "publish", publish_slowly)
    async with relaying(database, bus):
        await add(database, 1)
        await eventually(lambda: database.pool.fetchval("SELECT true FROM relay WHERE holder = 'another'"))
        await eventually(lambda: log.lines("another process publishes the outbox now"))
    assert not await is_drained(database)


async def lose_everything(bus):
    async for key in bus._client.scan_iter(match=f"{bus._prefix}*"):
        await bus._client.delete(key)


async def lose_the_stream(bus):
    await bus._client.delete(bus._prefix + TOPIC)


async def come_back_older(bus):
    """As a replica that had not yet received the last events."""
    stream = bus._prefix + TOPIC
    entries = await bus._client.xrange(stream)
    await bus._client.delete(stream)
    for entry, fields in entries[:1]:
        await bus._client.xadd(stream, fields, id=entry)


async def trim(bus):
    await bus._client.xtrim(bus._prefix + TOPIC, maxlen=1, approximate=False)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("lose", [lose_everything, lose_the_stream, come_back_older, trim])
async def test_events_that_the_bus_loses_before_a_consumer_applied_them_are_published_again(database, bus, lose):
    applied = []
    async with relaying(database, bus):
        async with consuming(database, bus, applied):
            await add(database, 1)
            await eventually(lambda: applied == [1])
            await eventually(lambda: is_acknowledged(database))
        await add(database, 2)
        await eventually(lambda: is_drained(database))
        await add(database, 3, 4)
        await eventually(lambda: is_drained(database))
        await lose(bus)
        async with consuming(database, bus, applied):
            await eventually(lambda: {*applied} == {1, 2, 3, 4})
            await add(database, 5)
            await eventually(lambda: applied[-1] == 5)
            await eventually(lambda: is_acknowledged(database))
    assert sorted(applied) == [1, 2, 3, 4, 5]


@pytest.mark.usefixtures("quick")
async def test_a_leader_that_crashes_with_the_bus_loses_nothing(database, bus):
    """The places of its last events were in its memory alone."""
    applied = []
    await add(database, 1)
    async with relaying(database, bus):
        await eventually(lambda: is_drained(database))
    assert await database.pool.fetchval("SELECT positions FROM relay") != "{}"
    await add(database, 2)
    rows = await database.pool.fetch("SELECT event_id FROM outbox")
    await database.pool.execute("UPDATE outbox SET publish_time = now()")  # published, and lost with the stream's end
    await database.pool.execute("UPDATE relay SET holder = 'crashed', lease_expire_time = now()")
    async with relaying(database, bus), consuming(database, bus, applied):
        await eventually(lambda: len(applied) == len(rows))
    assert applied == [1, 2]


@pytest.mark.usefixtures("quick")
async def test_acknowledged_events_are_not_published_again(database, bus, monkeypatch):
    monkeypatch.setattr("chassis.events.relay_state._CLOCK_MARGIN", timedelta(0))
    applied = []
    async with relaying(database, bus), consuming(database, bus, applied):
        await add(database, *range(10))
        await eventually(lambda: is_acknowledged(database))
        await lose_the_stream(bus)
        await add(database, 10)
        await eventually(lambda: len(applied) == 11)
        await eventually(lambda: is_drained(database))
    entries = await bus._client.xrange(bus._prefix + TOPIC)
    assert {events.StockChanged.FromString(one[b"payload"]).available for _, one in entries} == {10}


@pytest.mark.usefixtures("quick")
async def test_events_of_another_bus_are_published_again_on_this_one(database, bus):
    """An operator moved the mesh from Kafka to Redis."""
    await add(database, 1)
    await database.pool.execute("UPDATE outbox SET publish_time = now()")
    await database.pool.execute(
        """INSERT INTO relay (positions, position_time) VALUES ('{"shop.inventory.v1.Stock/0": "41"}', now())"""
    )
    applied = []
    async with relaying(database, bus), consuming(database, bus, applied):
        await eventually(lambda: applied == [1])


async def test_a_stream_longer_than_its_limit_is_trimmed_to_what_a_group_needs(database, bus, monkeypatch, quick):
    monkeypatch.setattr("chassis.events.redis_bus._MAX_STREAM_LENGTH", 20)
    applied = []
    async with relaying(database, bus):
        async with consuming(database, bus, applied):
            await add(database, *range(30))
            await eventually(lambda: bus._client.xlen(bus._prefix + TOPIC), lambda length: length <= 20)
        await add(database, *range(30, 80))
        await eventually(lambda: is_drained(database))
        async with consuming(database, bus, applied):
            await eventually(lambda: len(applied) == 80)
    assert applied == list(range(80))


async def test_while_the_bus_is_unavailable_watchers_are_notified_of_every_event_once(
    database, bus, monkeypatch, quick
):
    monkeypatch.setattr("chassis.events.relay._BATCH", 3)
    monkeypatch.setattr("chassis.events.relay._ANNOUNCED_BATCH", 4)
    available = asyncio.Event()
    publish = bus.publish

    async def publish_if_available(sent, positions):
        if not available.is_set():
            raise ConnectionError
        return await publish(sent, positions)

    monkeypatch.setattr(bus, "publish", publish_if_available)
    heard = []
    async with database.pool.acquire() as listener:
        await listener.add_listener(CHANNEL, lambda *arguments: heard.append(arguments[-1]))
        async with relaying(database, bus):
            async with database.transaction() as tx:
                await outbox.add(tx, *(events.StockChanged(sku=f"sku-{number}") for number in range(20)))
            await eventually(lambda: len({*heard}) == 20)
            await add(database, 1)
            await eventually(lambda: "a" in heard)
            assert len(heard) <= 21 + 3, "the first batch is heard twice: before it failed, and after"
            available.set()
            await eventually(lambda: is_drained(database))
        await listener.reset()


_ENTRIES = "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'outbox_unpublished'"


async def test_under_an_old_snapshot_a_search_does_not_read_what_was_published_before(database_url, database, bus):
    """A backup holds one for an hour, and index entries of published rows stay for as long."""
    relay = Relay(database, bus, "svc_inventory")
    relay._state._holder = "test"
    await database.pool.execute("INSERT INTO relay (holder) VALUES ('test')")
    async with database.pool.acquire() as backup, backup.transaction(isolation="repeatable_read"):
        await backup.execute("SELECT FROM outbox")
        for _ in range(2):
            await add(database, *range(500))
            while await relay._publish_batch():
                pass
            relay._full_search_due = 0.0
        await relay._publish_batch()
        await relay._publish_batch()
        async with database.connection() as one:
            relay._database = type("One", (), {"pool": one})
            await one.execute("SELECT pg_stat_force_next_flush()")
            before = await one.fetchval(_ENTRIES)
            await relay._publish_batch()
            await one.execute("SELECT pg_stat_force_next_flush()")
            read = await one.fetchval(_ENTRIES) - before
            relay._full_search_due = 0.0
            await relay._publish_batch()
            await one.execute("SELECT pg_stat_force_next_flush()")
            all_read = await one.fetchval(_ENTRIES) - before - read
    assert (read, all_read) == (0, 1_000)


async def test_a_commit_below_the_floor_is_published_by_the_next_full_search(database, bus, monkeypatch, quick):
    monkeypatch.setattr("chassis.events.relay._FULL_SEARCH_SECONDS", 0.2)
    async with database.transaction() as late:
        await outbox.add(late, events.StockChanged(sku="late"))
        await late.fetchval("SELECT 1")  # which sends what is to be written
        relay = Relay(database, bus, "svc_inventory")
        task = asyncio.create_task(relay.run())
        await add(database, 1)
        await eventually(lambda: relay._floor >= 2)
    await eventually(lambda: is_drained(database))
    await cancel_and_wait(task)


async def test_a_bus_that_has_not_reached_the_position_says_so(bus):
    with pytest.raises(EventsLost):
        await bus.maintain({TOPIC: "9-9"})
