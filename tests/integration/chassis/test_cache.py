"""The cache: whole messages for a while, never staler than a change; without Redis it is as if nothing were kept."""

import asyncio
import random
import time
from contextlib import suppress

import pytest
import redis.asyncio

from chassis import Cache
from chassis.testing import eventually
from mesh.stack.servers.redis import Redis
from shop.inventory.v1 import inventory_service_pb2 as pb


class Truth:
    """What the cache stands before; counts how often it is read."""

    def __init__(self):
        self.available = 1
        self.reads = 0

    async def read(self):
        self.reads += 1
        return pb.Stock(sku="a", available=self.available)


@pytest.fixture
def truth():
    return Truth()


@pytest.fixture
async def cache(redis_url, event_prefix, monkeypatch):
    """One that never takes a busy Redis for one that is away."""
    monkeypatch.setattr("chassis.cache._TIMEOUT_SECONDS", 30)
    cache = Cache.connect(redis_url, event_prefix)
    yield cache
    await cache.close()


async def available(cache, truth, group="g", entry="a", seconds=60):
    return (await cache.get_or_load(group, entry, pb.Stock, seconds, truth.read)).available


async def test_what_was_read_once_is_read_no_more(cache, truth):
    assert [await available(cache, truth) for _ in range(3)] == [1, 1, 1]
    assert truth.reads == 1


async def test_entries_of_a_group_are_apart_and_dropped_together(cache, truth):
    for entry in ("a", "b"):
        await available(cache, truth, entry=entry)
    await available(cache, truth, group="other")
    assert truth.reads == 3
    truth.available = 2
    await cache.invalidate("g")
    assert [await available(cache, truth, entry=entry) for entry in ("a", "b")] == [2, 2]
    assert await available(cache, truth, group="other") == 1


async def test_after_a_drop_what_is_read_is_kept_again_and_of_the_drop_itself_nothing_stays(
    cache, truth, redis_url, event_prefix
):
    await cache.invalidate("g")
    assert [await available(cache, truth) for _ in range(3)] == [1, 1, 1]
    assert truth.reads == 1
    async with redis.asyncio.from_url(redis_url, protocol=2) as client:
        assert 0 < await client.ttl(f"{event_prefix}:g:epoch") <= 3_600


async def test_several_groups_are_dropped_at_once(cache, truth):
    for group in ("g", "h"):
        await available(cache, truth, group=group)
    truth.available = 2
    await cache.invalidate("g", "h")
    assert [await available(cache, truth, group=group) for group in ("g", "h")] == [2, 2]


async def test_what_was_read_before_a_change_is_not_kept_after_it(cache, truth):
    """Or a slow reader would put the old value back for its whole life."""
    reading, go_on = asyncio.Event(), asyncio.Event()

    async def slow():
        old = await truth.read()
        reading.set()
        await go_on.wait()
        return old

    reader = asyncio.create_task(cache.get_or_load("g", "a", pb.Stock, 60, slow))
    await reading.wait()
    truth.available = 2
    await cache.invalidate("g")
    go_on.set()
    assert (await reader).available == 1
    assert await available(cache, truth) == 2


async def test_an_empty_message_is_not_a_miss(cache):
    reads = []

    async def read():
        reads.append(1)
        return pb.Stock()

    for _ in range(2):
        assert await cache.get_or_load("g", "a", pb.Stock, 60, read) == pb.Stock()
    assert reads == [1]


async def test_a_group_lives_from_its_first_entry_on_and_no_longer(cache, truth, redis_url, event_prefix):
    await available(cache, truth, seconds=100)
    await available(cache, truth, entry="b", seconds=1000)
    async with redis.asyncio.from_url(redis_url, protocol=2) as client:
        assert 90 < await client.ttl(f"{event_prefix}:g") <= 100


async def test_a_group_does_not_grow_without_end(cache, truth, redis_url, event_prefix):
    async with redis.asyncio.from_url(redis_url, protocol=2) as client:
        await client.hset(f"{event_prefix}:g", mapping={str(number): b"" for number in range(1_000)})
        await available(cache, truth, entry="one-more")
        assert await client.hlen(f"{event_prefix}:g") == 1_000


async def test_what_another_version_kept_is_a_miss(cache, truth, redis_url, event_prefix):
    async with redis.asyncio.from_url(redis_url, protocol=2) as client:
        await client.hset(f"{event_prefix}:g", "a", b"\xff\xff")
    assert await available(cache, truth) == 1


async def test_two_services_do_not_see_each_others_entries(cache, truth, redis_url, event_prefix):
    other = Cache.connect(redis_url, event_prefix + "other")
    await available(cache, truth)
    truth.available = 2
    assert await available(other, truth) == 2
    await other.close()


async def test_an_error_of_the_reader_is_the_callers_and_is_not_kept(cache, truth):
    async def fail():
        raise LookupError("absent")

    with pytest.raises(LookupError):
        await cache.get_or_load("g", "a", pb.Stock, 60, fail)
    assert await available(cache, truth) == 1


async def test_a_redis_that_is_away_reads_as_a_miss_soon_and_is_used_again_when_it_is_back(tmp_path, truth, log):
    sockets = tmp_path / "s"
    sockets.mkdir()
    async with Redis(tmp_path, sockets) as server:
        cache = Cache.connect(server.url, "x")
        await available(cache, truth)
    truth.available = 2
    began = time.monotonic()
    assert await available(cache, truth) == 2
    await cache.invalidate("g")
    assert time.monotonic() - began < 20
    assert {line["level"] for line in log.lines()} == {"WARNING"}
    async with Redis(tmp_path, sockets):
        await eventually(lambda: is_kept(cache, truth))
    await cache.close()


async def test_a_redis_that_hangs_costs_a_reader_a_moment_and_not_more(tmp_path, truth):
    async with Redis(tmp_path) as server:
        cache = Cache.connect(server.url, "x")
        await available(cache, truth)
        async with redis.asyncio.from_url(server.url, protocol=2) as client:
            await client.execute_command("CLIENT", "PAUSE", "60000", "ALL")
            began = time.monotonic()
            assert await available(cache, truth) == 1
            assert time.monotonic() - began < 20
        await cache.close()


async def is_kept(cache, truth):
    await available(cache, truth, entry="kept")
    before = truth.reads
    await available(cache, truth, entry="kept")
    return truth.reads == before


async def test_a_reader_that_is_cancelled_leaves_no_answer_of_its_own_to_the_next(cache):
    """A connection that is handed on with an answer under way would give each reader another's entry."""

    async def read(number):
        async def one():
            return pb.Stock(sku=str(number))

        return (await cache.get_or_load("g", str(number), pb.Stock, 60, one)).sku

    chance = random.Random(7)
    for number in range(500):
        reader = asyncio.create_task(read(number % 50))
        await asyncio.sleep(chance.uniform(0, 0.001))
        reader.cancel()
        with suppress(asyncio.CancelledError):
            assert await reader == str(number % 50)
    assert [await read(number) for number in range(50)] == list(map(str, range(50)))
