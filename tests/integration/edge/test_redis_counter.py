"""Counting in a real Redis that lets in only those who know its password."""

from pathlib import Path

import pytest
import redis.asyncio as redis

from chassis.testing import eventually
from edge_gateway.policies import redis_counter
from edge_gateway.policies.rate_counters import CounterUnavailableError
from edge_gateway.policies.redis_counter import RedisCounter
from mesh.stack.servers.redis import Redis


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is slow is not what is tried here."""
    monkeypatch.setattr(redis_counter, "_TIMEOUT", 30.0)


def files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_password_opens_and_a_wrong_one_leaves_nothing_behind(tmp_path: Path) -> None:
    async with Redis(tmp_path) as server, redis.from_url(server.url) as client:
        await client.config_set("requirepass", "p%w")
        path = server.url.removeprefix("unix://")
        right = RedisCounter(f"unix://:p%25w@{path}?db=1")
        taken = [await right.acquire("key", 2, 60) for _ in range(3)]
        assert [(one.allowed, one.remaining) for one in taken] == [(True, 1), (True, 0), (False, 0)]
        wrong, before = RedisCounter(f"unix://:other@{path}"), files()
        for _ in range(5):
            wrong._paused_until = 0.0  # else it would leave the server alone for a second
            with pytest.raises(CounterUnavailableError, match="password"):
                await wrong.acquire("key", 2, 60)
        assert files() <= before + 1  # the last one closes when the loop comes to it
        await right.close()


async def test_a_connection_that_was_lost_meanwhile_refuses_nobody(tmp_path: Path) -> None:
    async with Redis(tmp_path) as server, redis.from_url(server.url) as client:
        counter = RedisCounter(server.url)
        assert (await counter.acquire("key", 2, 60)).remaining == 1
        await client.client_kill_filter(_type="normal", skipme=True)
        await eventually(lambda: counter._connection is not None and counter._connection.lost)
        assert (await counter.acquire("key", 2, 60)).remaining == 0
        await counter.close()
