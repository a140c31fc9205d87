"""Watches: all watchers in a process share one read for each change, and none sees an older state after a newer one."""

import asyncio
from collections import Counter
from contextlib import ExitStack, aclosing, asynccontextmanager

import pytest

from chassis import Watch, WatchPace, current_call
from chassis.cancellation import cancel_and_wait
from chassis.context import Call, enter_call
from chassis.postgres.change_feed import CHANNEL, ChangeFeed, Draining
from chassis.testing import eventually

NOTES = "SELECT id, body FROM note WHERE id = ANY($1)"
WRITE = "INSERT INTO note VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET body = $2"


@pytest.fixture(autouse=True)
def never_polled(monkeypatch):
    """Only notifications wake watchers, unless a test changes it."""
    monkeypatch.setattr("chassis.postgres.change_feed._POLL_SECONDS", 3600.0)


class Notes:
    """Reads of the scratch table, counted by key."""

    def __init__(self, database):
        self.database = database
        self.reads = Counter()
        self.calls = []
        self.error = None

    async def __call__(self, keys):
        self.reads.update(keys)
        self.calls.append(current_call())
        rows = await self.database.pool.fetch(NOTES, list(keys))
        if self.error:
            raise self.error
        return {row["id"]: row["body"] for row in rows}

    async def write(self, key, body, *, notify=True):
        await self.database.pool.execute(WRITE, key, body)
        if notify:
            await self.database.pool.execute("SELECT pg_notify($1, $2)", CHANNEL, key)


class Watcher:
    """What one watcher has seen, and the error that ended it."""

    def __init__(self, watch, *keys):
        self.seen = []
        self.error = None
        self.task = asyncio.create_task(self._watch(watch, keys))

    async def _watch(self, watch, keys):
        try:
            async with aclosing(watch.values(keys)) as values:
                async for value in values:
                    self.seen.append(dict(value))
        except Exception as error:  # noqa: BLE001  a test looks at it
            self.error = error


@asynccontextmanager
async def watchers(watch, *keys, count=1):
    started = [Watcher(watch, *keys) for _ in range(count)]
    await all_have_seen(started, 1)
    yield started
    await cancel_and_wait(*(watcher.task for watcher in started))


async def all_have_seen(started, values):
    await eventually(lambda: all(len(watcher.seen) >= values for watcher in started))


@pytest.fixture
async def notes(database):
    return Notes(database)


@pytest.fixture
async def watch(database, notes):
    """A watch of the scratch table, whose process is listening."""
    feed = database.change_feed
    listening = asyncio.create_task(feed.listen(database.pool))
    async with aclosing(feed.subscribe(["ready"])) as changes:
        await anext(changes)
        ready = asyncio.ensure_future(anext(changes))
        while not ready.done():
            await notes.write("ready", "")
            await asyncio.wait([ready], timeout=0.05)
    yield Watch(feed, notes)
    await cancel_and_wait(listening)


async def test_a_watcher_sees_the_present_and_then_each_change(watch, notes):
    await notes.write("a", "1", notify=False)
    async with watchers(watch, "a", "absent") as (watcher,):
        await notes.write("a", "2")
        await all_have_seen([watcher], 2)
    assert watcher.seen == [{"a": "1"}, {"a": "2"}]


async def test_200_watchers_of_a_key_cause_one_read_for_each_change(watch, notes):
    await notes.write("a", "0", notify=False)
    async with watchers(watch, "a", count=200) as all_watchers:
        for change in range(1, 4):
            notes.reads.clear()
            await notes.write("a", str(change))
            await all_have_seen(all_watchers, change + 1)
            assert notes.reads == {"a": 1}
    assert {watcher.seen[-1]["a"] for watcher in all_watchers} == {"3"}


async def test_of_many_watched_keys_only_the_changed_one_is_read_again(watch, notes):
    for key in "abcde":
        await notes.write(key, "0", notify=False)
    async with watchers(watch, *"abcde", count=3) as all_watchers:
        notes.reads.clear()
        await notes.write("c", "1")
        await all_have_seen(all_watchers, 2)
        assert notes.reads == {"c": 1}
        assert [watcher.seen[1] for watcher in all_watchers] == [{"c": "1"}] * 3


async def test_a_change_without_a_notification_is_found_by_the_poll(watch, notes, monkeypatch):
    monkeypatch.setattr("chassis.postgres.change_feed._POLL_SECONDS", 0.05)
    monkeypatch.setattr("chassis.postgres.change_feed._SHARED_POLL_SECONDS", 0.02)
    await notes.write("a", "0", notify=False)
    async with watchers(watch, "a", count=5) as all_watchers:
        await notes.write("a", "1", notify=False)
        await eventually(lambda: all(watcher.seen[-1] == {"a": "1"} for watcher in all_watchers))


async def test_polls_that_come_close_share_a_read(watch, notes, monkeypatch):
    monkeypatch.setattr("chassis.postgres.change_feed._POLL_SECONDS", 0.01)
    await notes.write("a", "0", notify=False)
    async with watchers(watch, "a", count=20) as all_watchers:
        await all_have_seen(all_watchers, 2)
        notes.reads.clear()
        await all_have_seen(all_watchers, 10)
        assert notes.reads["a"] <= 1


async def test_a_watcher_that_is_cancelled_takes_no_read_from_the_others(watch, notes):
    await notes.write("a", "0", notify=False)
    async with watchers(watch, "a") as (first,), watchers(watch, "a", count=5) as others:
        async with notes.database.transaction() as tx:
            await tx.execute("LOCK note")  # so that the shared read takes a while
            notes.reads.clear()
            await notes.database.pool.execute("SELECT pg_notify($1, 'a')", CHANNEL)
            await eventually(lambda: notes.reads["a"])
            await cancel_and_wait(first.task)
        await all_have_seen(others, 2)
        assert notes.reads["a"] == 1
        assert all(watcher.error is None for watcher in others)


async def test_a_shared_read_has_no_watchers_deadline_or_identity(watch, notes):
    enter_call(Call(method="/x", deadline=0.0))
    try:
        watcher = Watcher(watch, "a")
    finally:
        enter_call(None)
    await eventually(lambda: watcher.seen)
    await notes.write("a", "1")
    await eventually(lambda: len(watcher.seen) == 2)
    await cancel_and_wait(watcher.task)
    own, shared = notes.calls
    assert (own.method, shared) == ("/x", None)


async def test_an_error_of_a_shared_read_reaches_each_watcher(watch, notes):
    await notes.write("a", "0", notify=False)
    async with watchers(watch, "a", count=50) as all_watchers:
        notes.error = ConnectionResetError("x")
        await notes.write("a", "1")
        await eventually(lambda: all(watcher.error for watcher in all_watchers))
    assert notes.reads["a"] == 51
    assert {type(watcher.error) for watcher in all_watchers} == {ConnectionResetError}


async def test_a_read_that_failed_is_not_shared_with_a_watcher_that_comes_later(watch, notes):
    await notes.write("a", "0", notify=False)
    async with aclosing(watch.values(["a"])) as slow, watchers(watch, "a") as (failed,):
        assert await anext(slow) == {"a": "0"}
        notes.error = ConnectionResetError("x")
        await notes.write("a", "1")
        await eventually(lambda: failed.error)
        notes.error = None
        assert await anext(slow) == {"a": "1"}


async def test_no_watcher_sees_an_older_state_after_a_newer_one():
    """One that begins between the start of the others' read and a change sees the change at once, and keeps it."""
    feed, versions, began = ChangeFeed(), iter(range(10)), asyncio.Event()
    release = asyncio.Event()

    async def read(keys):
        version = next(versions)
        if version == 1:  # the read that the first watcher shares
            began.set()
            await release.wait()
        return dict.fromkeys(keys, version)

    watch = Watch(feed, read)
    async with watchers(watch, "a") as (first,):
        feed._notify("a")
        await began.wait()
        async with watchers(watch, "a") as (second,):
            assert second.seen == [{"a": 2}]
            for event in feed._waiting.pop("a"):
                event.set()  # a wake-up without a newer notification
            await all_have_seen([second], 2)
            release.set()
            await all_have_seen([first], 2)
        assert second.seen == sorted(second.seen, key=lambda value: value["a"])


async def test_each_key_is_taken_from_its_own_latest_read():
    """A read of two keys is older for one of them, once that one was read alone."""
    for number in range(20):  # in whichever order a set has its keys
        await check_own_read(f"a{number}", f"b{number}")


async def check_own_read(one, other):
    feed, current = ChangeFeed(), {one: 0, other: 0}

    async def read(keys):
        return dict(current) if len(keys) == 2 else {key: current[key] for key in keys}

    watch = Watch(feed, read)
    async with aclosing(watch.values([one, other])) as slow, watchers(watch, one, other) as (quick,):
        await anext(slow)
        feed._notify_all()
        await all_have_seen([quick], 2)  # by a read of both
        current[other] = 1
        feed._notify(other)
        await all_have_seen([quick], 3)  # by a read of one
        assert await anext(slow) == current


async def test_at_shutdown_every_watcher_is_drained(watch):
    async with watchers(watch, "a", count=10) as all_watchers:
        watch._feed.close()
        await eventually(lambda: all(watcher.error for watcher in all_watchers))
    assert {type(watcher.error) for watcher in all_watchers} == {Draining}


async def test_the_last_watcher_leaves_nothing_behind(watch, notes):
    await notes.write("a", "0", notify=False)
    async with watchers(watch, "a", "b", count=2) as all_watchers:
        await notes.write("a", "1")
        await all_have_seen(all_watchers, 2)
        assert set(watch._reads) == {"a"}
    assert watch._reads == {}
    assert watch._feed._subscriptions == watch._feed._waiting == {}
    assert watch._feed._versions == {}


async def test_a_watcher_that_leaves_between_two_values_leaves_nothing_behind(watch, notes):
    async with aclosing(watch.values(["a"])) as values:
        await anext(values)
        await notes.write("a", "1")
        await anext(values)
    assert watch._reads == {}
    assert watch._feed._subscriptions == watch._feed._waiting == {}


def test_each_watcher_gets_its_share_of_the_messages_of_a_process():
    pace = WatchPace(messages_per_second=400, interval_seconds=0.25)
    with pace.watching():
        assert pace.seconds == 0.25
        with ExitStack() as others:
            for _ in range(799):
                others.enter_context(pace.watching())
            assert pace.seconds == 2.0
        assert pace.seconds == 0.25
