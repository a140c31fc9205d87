"""Counting in a real Redis: passwords, lost connections, and a Redis that does not respond."""

import asyncio
import socket
from pathlib import Path

import pytest
import redis.asyncio as redis

from chassis.rpc import redis_counter
from chassis.rpc.rate_counters import CounterUnavailableError
from chassis.rpc.redis_counter import RedisCounter
from mesh.stack.servers.redis import Redis


@pytest.fixture(autouse=True)
def _long_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tolerate a slow server, which is not the subject of these tests."""
    monkeypatch.setattr(redis_counter, "_TIMEOUT", 30.0)


def files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_the_right_password_is_accepted_and_a_wrong_one_leaks_no_connection(tmp_path: Path) -> None:
    async with Redis(tmp_path) as server, redis.from_url(server.url) as client:
        await client.config_set("requirepass", "p%w")
        path = server.url.removeprefix("unix://")
        right = RedisCounter(f"unix://:p%25w@{path}?db=1")
        results = [await right.acquire("key", 2, 60) for _ in range(3)]
        assert [(one.allowed, one.remaining) for one in results] == [(True, 1), (True, 0), (False, 0)]
        wrong, before = RedisCounter(f"unix://:other@{path}"), files()
        for _ in range(5):
            wrong._paused_until = 0.0  # else it would leave the server alone for a second
            with pytest.raises(CounterUnavailableError, match="password"):
                await wrong.acquire("key", 2, 60)
        assert files() <= before + 1  # the last one closes in a later pass of the loop
        await wrong.close()
        await right.close()


async def test_a_call_is_counted_after_redis_closed_the_connection(tmp_path: Path) -> None:
    async with Redis(tmp_path) as server, redis.from_url(server.url) as client:
        counter = RedisCounter(server.url)
        assert (await counter.acquire("key", 2, 60)).remaining == 1
        await client.client_kill_filter(_type="normal", skipme=True)
        assert (await counter.acquire("key", 2, 60)).remaining == 0
        await counter.close()


async def test_a_redis_that_does_not_respond_is_unavailable_within_the_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_counter, "_TIMEOUT", 0.2)
    clock = asyncio.get_running_loop().time
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "silent.sock"))
        listening.listen()
        counter = RedisCounter(f"unix://{tmp_path}/silent.sock")
        began = clock()
        for _ in range(100):  # the first one fails by the timeout, the others at once
            with pytest.raises(CounterUnavailableError):
                await counter.acquire("key", 2, 60)
        assert clock() - began < 1.0
        await counter.close()


async def test_calls_at_the_same_time_are_counted_exactly(tmp_path: Path) -> None:
    async with Redis(tmp_path) as server:
        counters = [RedisCounter(server.url), RedisCounter(server.url)]
        calls = [counters[number % 2].acquire("key", 30, 60) for number in range(100)]
        results = await asyncio.gather(*calls)
        assert sum(result.allowed for result in results) == 30
        for counter in counters:
            await counter.close()
