"""The change feed: subscribers are woken for their own keys, by changes of any process, and drained at shutdown."""

import asyncio
from contextlib import aclosing, asynccontextmanager

import asyncpg
import pytest

from chassis import Database
from chassis.cancellation import cancel_and_wait
from chassis.postgres.change_feed import CHANNEL, ChangeFeed, Draining
from chassis.testing import eventually

LISTENING = """
SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%' AND state = 'idle'"""


@pytest.fixture
def no_poll(monkeypatch):
    """Only notifications wake subscribers, never the poll."""
    monkeypatch.setattr("chassis.postgres.change_feed._POLL_SECONDS", 3600.0)


pytestmark = pytest.mark.usefixtures("no_poll")


@asynccontextmanager
async def listening(database):
    task = asyncio.create_task(database.change_feed.listen(database.pool))
    try:
        ready = Watcher(database.change_feed, "ready")
        async with asyncio.timeout(30):
            while ready.wakes < 2:  # the first is the present; a received notification is the second
                await notify(database, "ready")
                await asyncio.sleep(0.01)
        await cancel_and_wait(ready.task)
        yield
    finally:
        await cancel_and_wait(task)


async def listener(database):
    return await database.pool.fetchval(LISTENING)


async def notify(database, key):
    await database.pool.execute("SELECT pg_notify($1, $2)", CHANNEL, key)


class Watcher:
    """Counts how often it is woken."""

    def __init__(self, change_feed, *keys):
        self.wakes = 0
        self.ended = None
        self.task = asyncio.create_task(self._watch(change_feed, keys))

    async def _watch(self, change_feed, keys):
        try:
            async with aclosing(change_feed.subscribe(keys)) as changes:
                async for _ in changes:
                    self.wakes += 1
        except Draining as error:
            self.ended = error


@asynccontextmanager
async def watching(change_feed, *keys):
    watcher = Watcher(change_feed, *keys)
    await eventually(lambda: watcher.wakes)
    yield watcher
    await cancel_and_wait(watcher.task)


async def test_a_subscriber_gets_its_keys_at_once_and_then_only_their_changes(database):
    async with (
        listening(database),
        watching(database.change_feed, "a", "b") as mine,
        watching(database.change_feed, "c") as other,
    ):
        await notify(database, "a")
        await eventually(lambda: mine.wakes == 2)
        await notify(database, "b")
        await eventually(lambda: mine.wakes == 3)
        await notify(database, "nobody's")
        await notify(database, "c")
        await eventually(lambda: other.wakes == 2)
        assert mine.wakes == 3


async def test_a_change_of_another_process_wakes_subscribers(database_url, database):
    async with (
        Database.open(database_url) as other,
        listening(database),
        watching(database.change_feed, "a") as watcher,
    ):
        await notify(other, "a")
        await eventually(lambda: watcher.wakes == 2)


async def test_a_notification_while_a_subscriber_works_is_not_lost(database):
    async with (
        listening(database),
        watching(database.change_feed, "later") as later,
        aclosing(database.change_feed.subscribe(["a"])) as changes,
    ):
        await anext(changes)
        await notify(database, "a")
        await notify(database, "later")
        await eventually(lambda: later.wakes == 2)
        async with asyncio.timeout(30):
            await anext(changes)


async def test_a_broken_connection_is_replaced_and_all_subscribers_are_woken(database):
    async with listening(database), watching(database.change_feed, "a") as watcher:
        broken = await listener(database)
        await database.pool.execute("SELECT pg_terminate_backend($1)", broken)
        await eventually(lambda: has_another_listener(database, broken))
        await eventually(lambda: watcher.wakes == 2)
        await notify(database, "a")
        await eventually(lambda: watcher.wakes == 3)


async def has_another_listener(database, than):
    return await listener(database) not in (None, than)


async def test_closing_drains_all_subscribers():
    feed = ChangeFeed()
    async with watching(feed, "a") as first, watching(feed, "b") as second:
        feed.close()
        await asyncio.gather(first.task, second.task)
    assert isinstance(first.ended, Draining)
    assert isinstance(second.ended, Draining)


async def test_a_subscription_after_the_close_is_drained():
    """One whose call was admitted just before."""
    feed = ChangeFeed()
    feed.close()
    watcher = Watcher(feed, "a")
    async with asyncio.timeout(30):
        await watcher.task
    assert isinstance(watcher.ended, Draining)


async def test_an_ended_subscription_leaves_nothing_behind():
    feed = ChangeFeed()
    async with watching(feed, "a", "b"), watching(feed, "a"):
        assert set(feed._subscriptions) == {"a", "b"}
    assert feed._subscriptions == feed._waiting == {}


async def test_a_busy_subscriber_costs_a_notification_nothing_and_misses_none(no_poll):
    feed = ChangeFeed()
    async with asyncio.timeout(30), aclosing(feed.subscribe(["a", "b"])) as changes:
        assert await anext(changes) == {"a", "b"}
        assert feed._waiting == {}
        for _ in range(3):
            feed._notify("a")
        assert feed._waiting == {}
        assert await anext(changes) == {"a"}
        waiting = asyncio.ensure_future(anext(changes))
        await eventually(lambda: feed._waiting)
        feed._notify("b")
        assert await waiting == {"b"}


async def test_a_subscriber_is_woken_by_the_poll_without_notifications(monkeypatch):
    monkeypatch.setattr("chassis.postgres.change_feed._POLL_SECONDS", 0.02)
    async with watching(ChangeFeed(), "a") as watcher:
        await eventually(lambda: watcher.wakes >= 3)


async def test_after_any_connection_error_the_feed_listens_again(database, monkeypatch):
    """Under load asyncpg reports some of them as errors of its own protocol."""
    monkeypatch.setattr("chassis.postgres.change_feed._RECONNECT_SECONDS", 0.01)
    listen = asyncpg.Connection.add_listener
    troubles = [asyncpg.InternalClientError("x"), asyncpg.InterfaceError("x"), ConnectionResetError()]

    async def break_first(connection, *arguments):
        if troubles:
            raise troubles.pop()
        await listen(connection, *arguments)

    monkeypatch.setattr(asyncpg.Connection, "add_listener", break_first)
    async with listening(database), watching(database.change_feed, "a") as watcher:
        await notify(database, "a")
        await eventually(lambda: watcher.wakes == 2)
