"""The write lane: batches in order, each request with an outcome of its own, independent of the others' failures."""

import asyncio
from itertools import chain

import asyncpg
import pytest

from chassis import Lane, VersionConflict, current_call
from chassis.context import Call
from chassis.postgres.lane import shared_reads
from chassis.testing import as_user, eventually


class Refused(Exception):
    pass


class Counter:
    """The target of a lane: it records the batches, and blocks while `open` is not set."""

    def __init__(self):
        self.batches = []
        self.open = asyncio.Event()
        self.open.set()
        self.troubles = []
        self.watch = lambda _: None

    async def apply(self, requests):
        self.batches.append(list(requests))
        self.watch(self.batches[-1])
        await self.open.wait()
        if self.troubles:
            raise self.troubles.pop(0)
        if "poison" in requests:
            raise ValueError("poison")
        return [Refused(one) if one.startswith("refuse") else one.upper() for one in requests]


@pytest.fixture
def counter():
    return Counter()


@pytest.fixture
def lane(counter):
    return Lane(counter.apply)


async def busy(lane, counter):
    """Put one batch in flight, so that the next requests wait for the one after it."""
    counter.open.clear()
    first = asyncio.create_task(lane.submit("first"))
    await eventually(lambda: counter.batches)
    return first


async def submit(lane, *requests):
    tasks = [asyncio.create_task(lane.submit(one)) for one in requests]
    await asyncio.sleep(0)
    return tasks


async def test_an_idle_lane_applies_at_once(lane, counter):
    assert await lane.submit("a") == "A"
    assert counter.batches == [["a"]]


async def test_requests_that_arrive_during_a_batch_share_the_next_one_in_order(lane, counter):
    first = await busy(lane, counter)
    rest = await submit(lane, "b", "a", "c")
    counter.open.set()
    assert await asyncio.gather(first, *rest) == ["FIRST", "B", "A", "C"]
    assert counter.batches == [["first"], ["b", "a", "c"]]


async def test_a_batch_is_bounded_and_the_rest_follows_in_order(lane, counter):
    first = await busy(lane, counter)
    rest = await submit(lane, *map(str, range(600)))
    counter.open.set()
    await asyncio.gather(first, *rest)
    assert [len(batch) for batch in counter.batches] == [1, 256, 256, 88]
    assert list(chain(*counter.batches[1:])) == [str(number) for number in range(600)]


async def test_an_error_is_only_its_requests(lane, counter):
    first = await busy(lane, counter)
    rest = await submit(lane, "a", "refuse b", "c")
    counter.open.set()
    outcomes = await asyncio.gather(first, *rest, return_exceptions=True)
    assert [outcomes[1], outcomes[3]] == ["A", "C"]
    assert isinstance(outcomes[2], Refused)


async def test_a_poisoned_request_fails_alone(lane, counter):
    first = await busy(lane, counter)
    rest = await submit(lane, "a", "poison", "c")
    counter.open.set()
    outcomes = await asyncio.gather(first, *rest, return_exceptions=True)
    assert [outcomes[1], outcomes[3]] == ["A", "C"]
    assert isinstance(outcomes[2], ValueError)
    assert counter.batches[1:] == [["a", "poison", "c"], ["a"], ["poison"], ["c"]]


async def test_an_unavailable_database_fails_a_batch_at_once_and_not_one_by_one(lane, counter):
    first = await busy(lane, counter)
    rest = await submit(lane, "a", "b", "c")
    counter.troubles = [ConnectionRefusedError(), ConnectionRefusedError()]
    counter.open.set()
    outcomes = await asyncio.gather(first, *rest, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ConnectionRefusedError] * 4
    assert counter.batches == [["first"], ["a", "b", "c"]]


async def test_a_cancelled_waiting_request_is_dropped(lane, counter):
    first = await busy(lane, counter)
    gone, stays = await submit(lane, "gone", "stays")
    gone.cancel()
    counter.open.set()
    assert await asyncio.gather(first, stays) == ["FIRST", "STAYS"]
    assert counter.batches == [["first"], ["stays"]]
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_a_request_cancelled_while_a_poisoned_batch_is_isolated_is_dropped(lane, counter):
    first = await busy(lane, counter)
    poison, gone, stays = await submit(lane, "poison", "gone", "stays")
    counter.watch = lambda batch: batch == ["poison"] and gone.cancel()
    counter.open.set()
    assert await asyncio.gather(first, stays) == ["FIRST", "STAYS"]
    assert counter.batches == [["first"], ["poison", "gone", "stays"], ["poison"], ["stays"]]
    with pytest.raises(ValueError, match="poison"):
        await poison


async def test_a_cancelled_request_in_flight_leaves_the_others_their_replies(lane, counter):
    first = await busy(lane, counter)
    first.cancel()
    (second,) = await submit(lane, "second")
    counter.open.set()
    assert await second == "SECOND"
    assert counter.batches == [["first"], ["second"]]


@pytest.mark.parametrize(
    "conflict",
    [VersionConflict, asyncpg.DeadlockDetectedError, asyncpg.SerializationError],
    ids=lambda one: one.__name__,
)
async def test_a_conflict_has_the_whole_batch_applied_again(lane, counter, conflict):
    first = await busy(lane, counter)
    rest = await submit(lane, "a", "b")
    counter.troubles = [conflict(), conflict()]
    counter.open.set()
    assert await asyncio.gather(first, *rest) == ["FIRST", "A", "B"]
    assert counter.batches == [["first"]] * 3 + [["a", "b"]]


async def test_conflicts_that_do_not_end_are_raised(lane, counter):
    counter.troubles = [VersionConflict() for _ in range(1000)]
    with pytest.raises(VersionConflict):
        await lane.submit("a")
    assert 5 <= len(counter.batches) <= 50


async def test_a_wrong_number_of_outcomes_fails_all_requests():
    async def apply(requests):
        return []

    async with asyncio.timeout(30):
        with pytest.raises(ValueError, match="outcomes"):
            await Lane(apply).submit("a")


async def test_a_batch_has_neither_the_deadline_nor_the_identity_of_its_first_caller():
    calls = []

    async def apply(requests):
        calls.append(current_call())
        return requests

    with as_user("Bearer of-somebody"):
        assert isinstance(current_call(), Call)
        await Lane(apply).submit("a")
    assert calls == [None]


async def test_each_request_of_a_batch_has_its_own_trace(counter):
    seen = []

    async def apply(requests):
        seen.append(list(requests.traceparents))
        return await counter.apply(requests)

    lane = Lane(apply)
    counter.troubles = [VersionConflict()]
    with as_user():
        first, expected = await busy(lane, counter), [current_call().traceparent]
    with as_user():
        (second,) = await submit(lane, "second")
        expected.append(current_call().traceparent)
    (of_nobody,) = await submit(lane, "third")
    counter.open.set()
    await asyncio.gather(first, second, of_nobody)
    assert seen == [expected[:1], expected[:1], [expected[1], ""]]
    assert expected[0] != expected[1]


async def test_a_cancellation_that_leaks_out_of_a_batch_leaves_no_caller_waiting(lane, counter):
    """Such as one of a task inside asyncpg."""
    first = await busy(lane, counter)
    (second,) = await submit(lane, "second")
    counter.troubles = [asyncio.CancelledError()]
    counter.open.set()
    async with asyncio.timeout(30):
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await second == "SECOND"


async def test_a_deadline_of_one_caller_does_not_end_the_batch(lane, counter):
    first = await busy(lane, counter)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await lane.submit("late")
    (patient,) = await submit(lane, "patient")
    counter.open.set()
    assert await asyncio.gather(first, patient) == ["FIRST", "PATIENT"]


async def test_an_idle_lane_adds_no_wait():
    steps = 0
    counting = True

    async def count():
        nonlocal steps
        while counting:
            steps += 1
            await asyncio.sleep(0)

    async def apply(requests):
        return requests

    lane = Lane(apply)
    counter = asyncio.create_task(count())
    for number in range(10):
        await lane.submit(number)
    counting = False
    await counter
    assert steps <= 10 * 4


async def test_an_idle_lane_keeps_no_task(lane):
    before = asyncio.all_tasks()
    await lane.submit("a")
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


class Table:
    """Rows by key, whose reads are recorded and can be held."""

    def __init__(self):
        self.rows = {"a": 1}
        self.reads = []
        self.go_on = asyncio.Event()

    async def read(self, keys):
        self.reads.append(sorted(keys))
        found = {key: self.rows[key] for key in keys if key in self.rows}
        await self.go_on.wait()
        return found


async def test_readers_that_come_during_a_read_share_the_next_one_and_see_what_was_written_before_they_came():
    table = Table()
    reads = shared_reads(table.read)
    first = asyncio.create_task(reads.submit("a"))
    await eventually(lambda: table.reads)
    table.rows = {"a": 2, "b": 3}
    later = [asyncio.create_task(reads.submit(key)) for key in ("a", "b", "a", "absent")]
    table.go_on.set()
    assert [await first, *await asyncio.gather(*later)] == [1, 2, 3, 2, None]
    assert table.reads == [["a"], ["a", "absent", "b"]]


async def test_a_key_that_cannot_be_read_fails_its_own_readers_alone():
    async def read(keys):
        if "poison" in keys:
            raise ValueError("poison")
        return dict.fromkeys(keys, 1)

    reads = shared_reads(read)
    found = await asyncio.gather(*map(reads.submit, ("a", "poison", "b")), return_exceptions=True)
    assert [type(one) for one in found] == [int, ValueError, int]
