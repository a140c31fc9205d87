"""The cache: messages with an expiry, never older than a change; without Redis each read is a miss."""

import asyncio
import random
import time
from contextlib import suppress

import pytest
import redis.asyncio
from redis.crc import key_slot

from chassis import Cache
from chassis.testing import eventually
from mesh.stack.servers.redis import Redis
from shop.inventory.v1 import inventory_service_pb2 as pb


class Truth:
    """The source that the cache loads from; counts its loads."""

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
    """A cache whose timeout a busy Redis does not exceed."""
    monkeypatch.setattr("chassis.cache._TIMEOUT_SECONDS", 30)
    cache = Cache.connect(redis_url, event_prefix)
    yield cache
    await cache.close()


async def available(cache, truth, group="g", entry="a", seconds=60):
    return (await cache.get_or_load(group, entry, pb.Stock, seconds, truth.read)).available


async def test_a_cached_message_is_not_loaded_again(cache, truth):
    assert [await available(cache, truth) for _ in range(3)] == [1, 1, 1]
    assert truth.reads == 1


async def test_entries_of_a_group_are_separate_and_invalidated_together(cache, truth):
    for entry in ("a", "b"):
        await available(cache, truth, entry=entry)
    await available(cache, truth, group="other")
    assert truth.reads == 3
    truth.available = 2
    await cache.invalidate("g")
    assert [await available(cache, truth, entry=entry) for entry in ("a", "b")] == [2, 2]
    assert await available(cache, truth, group="other") == 1


async def test_after_an_invalidation_messages_are_cached_again_and_its_marker_expires(
    cache, truth, redis_url, event_prefix
):
    await cache.invalidate("g")
    assert [await available(cache, truth) for _ in range(3)] == [1, 1, 1]
    assert truth.reads == 1
    async with redis.asyncio.from_url(redis_url, protocol=2) as client:
        assert 0 < await client.ttl(f"{{{event_prefix}:g}}:epoch") <= 3_600


async def test_several_groups_are_invalidated_at_once(cache, truth):
    for group in ("g", "h"):
        await available(cache, truth, group=group)
    truth.available = 2
    await cache.invalidate("g", "h")
    assert [await available(cache, truth, group=group) for group in ("g", "h")] == [2, 2]


async def test_a_message_loaded_before_an_invalidation_is_not_cached_after_it(cache, truth):
    """Or a slow reader would cache the old value for its whole lifetime."""
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


async def test_a_group_expires_after_its_first_entrys_lifetime(cache, truth, redis_url, event_prefix):
    await available(cache, truth, seconds=100)
    await available(cache, truth, entry="b", seconds=1000)
    async with redis.asyncio.from_url(redis_url, protocol=2) as client:
        assert 90 < await client.ttl(f"{{{event_prefix}:g}}") <= 100


async def test_a_full_group_evicts_an_entry_for_a_new_one(cache, truth, redis_url, event_prefix):
    async with redis.asyncio.from_url(redis_url, protocol=2) as client:
        await client.hset(f"{{{event_prefix}:g}}", mapping={str(number): b"" for number in range(1_000)})
        assert [await available(cache, truth) for _ in range(2)] == [1, 1]
        assert await client.hlen(f"{{{event_prefix}:g}}") == 1_000
    assert truth.reads == 1


async def test_a_load_that_is_under_way_at_the_close_does_not_connect_again(redis_url, event_prefix):
    began, may_end = asyncio.Event(), asyncio.Event()

    async def read():
        began.set()
        await may_end.wait()
        return pb.Stock()

    cache = Cache.connect(redis_url, event_prefix)
    caller = asyncio.create_task(cache.get_or_load("g", "a", pb.Stock, 60, read))
    await began.wait()
    await cache.close()
    may_end.set()
    with suppress(asyncio.CancelledError):
        await caller
    async with redis.asyncio.from_url(redis_url, protocol=2) as client:
        assert not await client.exists(f"{{{event_prefix}:g}}")


class HeldTruth(Truth):
    """Answers when it is let go."""

    def __init__(self):
        super().__init__()
        self.go_on = asyncio.Event()

    async def read(self):
        message = await super().read()
        await self.go_on.wait()
        return message


async def test_readers_that_miss_an_entry_at_once_share_one_load(cache):
    truth = HeldTruth()
    readers = [asyncio.create_task(available(cache, truth)) for _ in range(20)]
    await eventually(lambda: truth.reads)
    readers[0].cancel()
    truth.go_on.set()
    assert await asyncio.gather(*readers[1:]) == [1] * 19
    assert truth.reads == 1


async def test_a_reader_after_an_invalidation_shares_no_load_from_before(cache):
    truth = HeldTruth()
    early = asyncio.create_task(available(cache, truth))
    await eventually(lambda: truth.reads)
    truth.available = 2
    await cache.invalidate("g")
    late = asyncio.create_task(available(cache, truth))
    await eventually(lambda: truth.reads == 2)
    truth.go_on.set()
    assert await asyncio.gather(early, late) == [1, 2]


async def test_an_entry_of_another_version_is_a_miss(cache, truth, redis_url, event_prefix):
    async with redis.asyncio.from_url(redis_url, protocol=2) as client:
        await client.hset(f"{{{event_prefix}:g}}", "a", b"\xff\xff")
    assert await available(cache, truth) == 1


@pytest.fixture
async def twin(redis_url, event_prefix, cache):
    """The cache of another process of the same service."""
    twin = Cache.connect(redis_url, event_prefix)
    yield twin
    await twin.close()


async def test_an_entry_is_kept_in_the_process_that_has_read_it(cache, truth, redis_url, event_prefix):
    await available(cache, truth)
    async with redis.asyncio.from_url(redis_url, protocol=2) as client:
        await client.delete(f"{{{event_prefix}:g}}")
        assert await available(cache, truth) == 1
    assert truth.reads == 1


async def test_an_entry_that_another_process_has_invalidated_is_not_returned(cache, twin, truth):
    assert [await available(one, truth) for one in (cache, twin)] == [1, 1]
    truth.available = 2
    await twin.invalidate("g")
    assert [await available(one, truth) for one in (cache, twin)] == [2, 2]


class OneByOne:
    """A pipeline that lets another process act between two of its commands."""

    def __init__(self, client, act):
        self._client = client
        self._act = act
        self._commands = []

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        pass

    def __getattr__(self, name):
        return lambda *words, **options: self._commands.append((name, words, options))

    async def execute(self):
        for name, words, options in self._commands:
            await getattr(self._client, name)(*words, **options)
            await self._act()


async def test_a_reader_in_the_middle_of_an_invalidation_keeps_no_old_entry(
    cache, twin, truth, redis_url, event_prefix
):
    await available(cache, truth)
    truth.available = 2
    async with redis.asyncio.from_url(redis_url, protocol=2) as client:
        slow = Cache(client, event_prefix)
        client.pipeline = lambda **_: OneByOne(client, lambda: available(twin, truth))
        await slow.invalidate("g")
    assert await available(twin, truth) == 2


async def test_an_entry_from_before_a_loss_of_redis_is_not_returned(cache, twin, truth, redis_url, event_prefix):
    """The loss may have taken an invalidation with it."""
    await available(cache, truth)
    truth.available = 2
    await twin.invalidate("g")
    async with redis.asyncio.from_url(redis_url, protocol=2) as client:
        await client.delete(f"{{{event_prefix}:g}}", f"{{{event_prefix}:g}}:epoch")
    assert await available(cache, truth, entry="b") == 2  # the group has an epoch again
    assert await available(cache, truth) == 2


async def test_a_kept_entry_expires_with_its_group(cache, twin, truth, redis_url, event_prefix):
    await available(cache, truth)
    async with redis.asyncio.from_url(redis_url, protocol=2) as client:
        await client.pexpire(f"{{{event_prefix}:g}}", 300)
    await available(twin, truth)
    truth.available = 2
    await eventually(lambda: available(twin, truth), lambda seen: seen == 2)


async def test_entries_beyond_the_memory_of_a_process_are_dropped(cache, truth, redis_url, event_prefix, monkeypatch):
    monkeypatch.setattr("chassis.cache._KEPT_BYTES", 8)
    await available(cache, truth, entry="a")
    await available(cache, truth, entry="b")
    async with redis.asyncio.from_url(redis_url, protocol=2) as client:
        await client.delete(f"{{{event_prefix}:g}}")
    truth.available = 2
    assert [await available(cache, truth, entry=entry) for entry in ("b", "a")] == [1, 2]


async def test_two_services_do_not_see_each_others_entries(cache, truth, redis_url, event_prefix):
    other = Cache.connect(redis_url, event_prefix + "other")
    await available(cache, truth)
    truth.available = 2
    assert await available(other, truth) == 2
    await other.close()


async def test_an_error_of_the_load_is_raised_and_not_cached(cache, truth):
    async def fail():
        raise LookupError("absent")

    with pytest.raises(LookupError):
        await cache.get_or_load("g", "a", pb.Stock, 60, fail)
    assert await available(cache, truth) == 1


async def test_an_unavailable_redis_is_a_quick_miss_and_is_used_again_later(tmp_path, truth, log):
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


async def test_a_hanging_redis_delays_a_reader_by_the_timeout_alone(tmp_path, truth):
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


async def test_a_cancelled_reader_leaves_no_response_on_its_connection(cache):
    """A connection reused with a response pending would return another reader's entry to each."""

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


def test_the_keys_of_a_group_are_in_one_slot_of_a_cluster(cache):
    """Or its script would be refused there."""
    assert key_slot(cache._group("g").encode()) == key_slot(cache._epoch("g").encode())
    assert key_slot(cache._group("g").encode()) != key_slot(cache._group("h").encode())
