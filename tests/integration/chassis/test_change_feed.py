"""A watcher wakes for its own keys, whichever process changed them, and ends when the server drains."""

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
def patient(monkeypatch):
    """Watchers never look by themselves: only news wake them."""
    monkeypatch.setattr("chassis.postgres.change_feed._POLL_SECONDS", 3600.0)


pytestmark = pytest.mark.usefixtures("patient")


@asynccontextmanager
async def listening(database):
    task = asyncio.create_task(database.change_feed.listen(database.pool))
    try:
        heard = Watcher(database.change_feed, "ready")
        async with asyncio.timeout(30):
            while heard.wakes < 2:  # the first is the present; a notification that is heard is the second
                await notify(database, "ready")
                await asyncio.sleep(0.01)
        await cancel_and_wait(heard.task)
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


async def test_a_watcher_begins_with_the_present_and_wakes_for_its_keys_only(database):
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


async def test_another_process_is_heard_too(database_url, database):
    async with (
        Database.open(database_url) as other,
        listening(database),
        watching(database.change_feed, "a") as watcher,
    ):
        await notify(other, "a")
        await eventually(lambda: watcher.wakes == 2)


async def test_news_that_come_while_a_watcher_is_at_work_are_not_lost(database):
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


async def test_when_the_connection_breaks_another_takes_its_place_and_everybody_looks(database):
    async with listening(database), watching(database.change_feed, "a") as watcher:
        broken = await listener(database)
        await database.pool.execute("SELECT pg_terminate_backend($1)", broken)
        await eventually(lambda: has_another_listener(database, broken))
        await eventually(lambda: watcher.wakes == 2)
        await notify(database, "a")
        await eventually(lambda: watcher.wakes == 3)


async def has_another_listener(database, than):
    return await listener(database) not in (None, than)


async def test_at_the_end_every_watcher_is_sent_away():
    news = ChangeFeed()
    async with watching(news, "a") as first, watching(news, "b") as second:
        news.close()
        await asyncio.gather(first.task, second.task)
    assert isinstance(first.ended, Draining)
    assert isinstance(second.ended, Draining)


async def test_a_watcher_that_comes_after_the_end_is_sent_away_too():
    """One whose call was let in just before."""
    news = ChangeFeed()
    news.close()
    watcher = Watcher(news, "a")
    async with asyncio.timeout(30):
        await watcher.task
    assert isinstance(watcher.ended, Draining)


async def test_a_watcher_that_leaves_leaves_nothing_behind():
    news = ChangeFeed()
    async with watching(news, "a", "b"), watching(news, "a"):
        assert set(news._subscribers) == {"a", "b"}
    assert news._subscribers == {}


async def test_a_watcher_looks_by_itself_when_news_were_lost(monkeypatch):
    monkeypatch.setattr("chassis.postgres.change_feed._POLL_SECONDS", 0.02)
    async with watching(ChangeFeed(), "a") as watcher:
        await eventually(lambda: watcher.wakes >= 3)


async def test_whatever_the_database_client_makes_of_a_broken_connection_it_listens_again(database, monkeypatch):
    """Under load it finds some of them in the middle of its own protocol."""
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
