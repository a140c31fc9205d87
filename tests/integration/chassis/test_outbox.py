"""The outbox: exactly the committed events are published, in order, by one process at a time."""

import asyncio
from contextlib import asynccontextmanager

import pytest
import redis.asyncio

from chassis import Database, current_call, outbox
from chassis.cancellation import cancel_and_wait
from chassis.events.bus import Event
from chassis.events.consumer import Consumer
from chassis.events.redis_bus import RedisBus
from chassis.events.relay import Relay
from chassis.postgres.change_feed import CHANNEL
from chassis.testing import as_user, eventually
from shop.inventory.v1 import inventory_events_pb2 as events
from shop.inventory.v1 import inventory_service_pb2 as pb

STOCK, RESERVATION = "shop.inventory.v1.Stock", "shop.inventory.v1.Reservation"
LEADER = "SELECT holder FROM relay WHERE lease_expire_time > now() AND holder <> ''"
LEADERS_SESSION = """
SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND query LIKE '%UPDATE relay SET lease_expire_time%'"""


@pytest.fixture
async def bus(redis_url, event_prefix):
    async with RedisBus.open(redis_url, event_prefix) as bus:
        yield bus


@pytest.fixture
async def published(redis_url, event_prefix):
    """Read all events that are on the bus: `await published()`."""
    async with redis.asyncio.from_url(redis_url, protocol=2) as client:

        async def published(topic=STOCK):
            entries = await client.xrange(f"{{{event_prefix}bus}}:{topic}")
            return [
                Event.from_headers(
                    topic, {k.decode(): v.decode() for k, v in one.items() if k != b"payload"}, one[b"payload"]
                )
                for _, one in entries
            ]

        yield published


@asynccontextmanager
async def relaying(database, bus):
    task = asyncio.create_task(Relay(database, bus, "svc_inventory").run())
    try:
        yield task
    finally:
        await cancel_and_wait(task)


def stock(available, sku="a"):
    return events.StockChanged(sku=sku, available=available)


def figures(published):
    return [events.StockChanged.FromString(one.payload).available for one in published]


async def tell(database, *what):
    async with database.transaction() as tx:
        await outbox.add(tx, *what)


async def leader(database):
    return await database.pool.fetchval(LEADER)


async def is_drained(database):
    return not await database.pool.fetchval("SELECT count(*) FROM outbox WHERE publish_time IS NULL")


async def test_a_committed_event_is_published_with_all_its_attributes(database, bus, published):
    with as_user():
        async with relaying(database, bus):
            await tell(database, stock(3), events.ReservationReleased(reservation_id="r-1"))
            await eventually(lambda: is_drained(database))
    (changed,), (released,) = await published(STOCK), await published(RESERVATION)
    row = await database.pool.fetchrow("SELECT * FROM outbox ORDER BY id LIMIT 1")
    assert events.StockChanged.FromString(changed.payload) == stock(3)
    assert (changed.id, changed.type, changed.key) == (str(row["event_id"]), "shop.inventory.v1.StockChanged", "a")
    assert (changed.source, released.key) == ("svc_inventory", "r-1")
    assert changed.traceparent == released.traceparent == row["traceparent"] != ""
    assert changed.time.endswith("Z")


async def test_an_event_that_does_not_commit_is_not_published(database, bus, published):
    async def fail():
        async with database.transaction() as tx:
            await outbox.add(tx, stock(1))
            raise LookupError

    async with relaying(database, bus):
        with pytest.raises(LookupError):
            await fail()
        await tell(database, stock(2))
        await eventually(lambda: is_drained(database))
    assert figures(await published()) == [2]


async def test_no_event_is_published_before_it_commits(database, bus, published):
    async with relaying(database, bus):
        async with database.transaction() as tx:
            await outbox.add(tx, stock(1))
            await tell(database, stock(2, sku="b"))
            await eventually(lambda: is_drained(database))
            assert figures(await published()) == [2]
        await eventually(lambda: is_drained(database))
    assert figures(await published()) == [2, 1]


async def test_a_late_commit_with_a_lower_id_is_not_skipped(database, bus, published):
    """A cursor on the sequence would lose it."""
    async with relaying(database, bus):
        async with database.transaction() as late:
            await outbox.add(late, stock(1))
            await late.fetchval("SELECT 1")  # which sends what is to be written
            for number in range(2, 5):
                await tell(database, stock(number))
            await eventually(lambda: is_drained(database))
            assert figures(await published()) == [2, 3, 4]
        await eventually(lambda: is_drained(database))
    assert figures(await published()) == [2, 3, 4, 1]


async def test_events_are_published_in_the_order_in_which_they_were_added(database, bus, published):
    async with relaying(database, bus):
        for start in range(0, 60, 3):
            await tell(database, *map(stock, range(start, start + 3)))
        await eventually(lambda: is_drained(database))
    assert figures(await published()) == list(range(60))


async def test_events_of_one_key_come_in_the_order_of_their_changes_wherever_postgresql_stores_their_rows(
    database, bus, published
):
    """A purge frees the space of old rows, and PostgreSQL puts new rows there: in front of older ones."""
    await tell(database, *(sized(1_000) for _ in range(40)))
    await tell(database, stock(1))
    await database.pool.execute("DELETE FROM outbox WHERE id <= 40")
    await database.pool.execute("VACUUM ANALYZE outbox")
    await tell(database, stock(2), stock(3))
    rows = await database.pool.fetch("SELECT id FROM outbox ORDER BY ctid")
    assert [row["id"] for row in rows] == [42, 43, 41], "the newest are stored first"
    async with relaying(database, bus):
        await eventually(lambda: is_drained(database))
    assert figures(await published()) == [1, 2, 3]


async def test_adding_no_events_has_no_effect(database):
    await tell(database)
    assert await is_drained(database)


async def test_a_message_that_is_no_event_cannot_be_added(database):
    with pytest.raises(KeyError):
        await tell(database, pb.Stock())


async def test_events_may_have_traces_of_their_own_by_key(database):
    with as_user():
        async with database.transaction() as tx:
            await outbox.add(tx, stock(1, "a"), stock(2, "b"), traces={"a": "trace-of-a", "c": "trace-of-c"})
        own = current_call().traceparent
    rows = await database.pool.fetch("SELECT key, traceparent FROM outbox")
    assert {row["key"]: row["traceparent"] for row in rows} == {"a": "trace-of-a", "b": own}


def sized(size):
    """An event of exactly this many bytes."""
    empty = events.StockChanged(sku="a", location_id="x" * size)
    return events.StockChanged(sku="a", location_id="x" * (2 * size - empty.ByteSize()))


async def test_the_largest_event_is_published(database, bus, published):
    async with relaying(database, bus):
        await tell(database, sized(outbox.LARGEST_BYTES), stock(1, "🖊" * outbox.LONGEST_KEY))
        await eventually(lambda: is_drained(database))
    assert [len(one.payload) for one in await published()][:1] == [outbox.LARGEST_BYTES]


@pytest.mark.parametrize(
    "event",
    [lambda: sized(outbox.LARGEST_BYTES + 1), lambda: stock(1, "k" * (outbox.LONGEST_KEY + 1))],
    ids=["payload", "key"],
)
async def test_a_larger_event_fails_its_change_rather_than_block_later_events(database, event):
    async def change():
        async with database.transaction() as tx:
            await tx.execute("INSERT INTO note (id) VALUES ('changed')")
            await outbox.add(tx, stock(1), event())

    with pytest.raises(ValueError, match="bytes"):
        await change()
    assert await database.pool.fetchval("SELECT (SELECT count(*) FROM note) + (SELECT count(*) FROM outbox)") == 0


async def test_a_relay_that_crashes_after_publishing_publishes_again_and_the_inbox_drops_it(database, bus, published):
    """A trigger kills its connection between the two."""
    await database.pool.execute(
        """CREATE SEQUENCE deaths;
           CREATE TABLE applied (what int);
           CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF nextval('deaths') <= 2 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;
               RETURN NEW; END $$;
           CREATE TRIGGER die BEFORE UPDATE ON outbox FOR EACH ROW WHEN (NEW.publish_time IS NOT NULL)
               EXECUTE FUNCTION die()"""
    )

    async def on_stock_changed(tx, event):
        await tx.execute("INSERT INTO applied VALUES ($1)", event.available)

    consumer = asyncio.create_task(Consumer("svc_toy", database, bus, {events.StockChanged: on_stock_changed}).run())
    async with relaying(database, bus):
        await tell(database, stock(1), stock(2))
        await eventually(lambda: is_drained(database))
        await tell(database, stock(3))
        await eventually(lambda: is_drained(database))
    assert figures(await published()) == [1, 2] * 3 + [3]
    assert len({event.id for event in await published()}) == 3
    await eventually(lambda: has_applied(database, [1, 2, 3]))
    await cancel_and_wait(consumer)


async def has_applied(database, what):
    return [row["what"] for row in await database.pool.fetch("SELECT what FROM applied")] == what


async def test_of_two_relays_one_leads_and_the_other_takes_over_when_it_ends(database_url, database, bus, published):
    async with Database.open(database_url) as other, relaying(other, bus):
        async with relaying(database, bus):
            await eventually(lambda: leader(database))
            first = await leader(database)
            await tell(database, stock(1))
            await tell(other, stock(2))
            await eventually(lambda: is_drained(database))
            assert await leader(database) == first
        # The one that leads has ended, or the other; which of the two, the race has decided.
        await eventually(lambda: leader(database))
        await tell(other, stock(3))
        await eventually(lambda: is_drained(database))
    assert figures(await published()) == [1, 2, 3]


async def test_a_leader_whose_connection_is_killed_loses_nothing_and_is_replaced(
    database_url, database, bus, published
):
    async with Database.open(database_url) as other, relaying(other, bus), relaying(database, bus):
        for number in range(5):
            killed = await eventually(lambda: database.pool.fetchval(LEADERS_SESSION))
            await database.pool.execute("SELECT pg_terminate_backend($1)", killed)
            await tell(database, stock(number))
            await eventually(lambda: is_drained(database))
            await eventually(lambda: leader(database))
    assert list(dict.fromkeys(figures(await published()))) == list(range(5))


async def has_no_leader(database):
    return await leader(database) is None


async def test_a_cancelled_relay_releases_its_lease(database, bus):
    for _ in range(3):
        async with relaying(database, bus):
            await eventually(lambda: leader(database))
        await eventually(lambda: has_no_leader(database))


@pytest.fixture
def patient(monkeypatch):
    """Only hints wake relays, never the poll."""
    monkeypatch.setattr("chassis.events.relay._POLL_SECONDS", 3600.0)


@pytest.mark.usefixtures("patient")
async def test_a_commit_wakes_the_relay_at_once(database, bus, published):
    async with relaying(database, bus):
        await eventually(lambda: leader(database))
        for number in range(3):
            await tell(database, stock(number))
            await eventually(lambda: is_drained(database))
    assert figures(await published()) == [0, 1, 2]


@pytest.mark.usefixtures("patient")
async def test_more_than_one_batch_is_drained_at_once(database, bus, published):
    await tell(database, *map(stock, range(1_300)))
    async with relaying(database, bus):
        await eventually(lambda: is_drained(database))
    assert figures(await published()) == list(range(1_300))


async def test_a_relay_without_events_makes_no_queries(database, bus):
    relay = Relay(database, bus, "svc_inventory")
    task = asyncio.create_task(relay.run())
    await tell(database, stock(1))
    await eventually(lambda: is_drained(database))
    await eventually(lambda: not relay._hint.is_set())
    await cancel_and_wait(task)


@pytest.mark.usefixtures("patient")
async def test_a_commit_of_another_process_wakes_the_relay_that_leads(database_url, database, bus):
    async with Database.open(database_url) as other, relaying(database, bus):
        await eventually(lambda: leader(database))
        async with relaying(other, bus):
            await eventually(lambda: waits_in_second_place(database))
            for number in range(3):
                await tell(other, stock(number))
                await eventually(lambda: is_drained(database))


async def waits_in_second_place(database):
    return await database.pool.fetchval(
        """SELECT count(*) FROM pg_stat_activity
           WHERE datname = current_database() AND query LIKE 'SELECT true FROM relay' AND state = 'idle'"""
    )


async def test_watchers_are_notified_of_the_keys_of_published_events(database, bus):
    heard = []
    async with database.pool.acquire() as listener:
        await listener.add_listener(CHANNEL, lambda *arguments: heard.append(arguments[-1]))
        async with relaying(database, bus):
            await tell(database, stock(1, "a"), stock(2, "a"), stock(3, "b"))
            await eventually(lambda: len(heard) >= 2)
            await eventually(lambda: is_drained(database))
        await listener.reset()
    assert sorted(heard) == ["a", "b"]
