"""Running one coroutine function for many items: its concurrency, and what an exception does."""

import asyncio

import pytest

from mesh.qa.concurrency import run_concurrently


async def test_every_item_is_run_with_at_most_the_allowed_concurrency():
    done, busy, most = [], 0, 0

    async def do(item):
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0)
        busy -= 1
        done.append(item)

    await run_concurrently(range(10), do, limit=3)
    assert sorted(done) == list(range(10))
    assert most == 3


async def test_the_first_exception_cancels_the_rest_and_is_raised():
    done = []

    async def do(item):
        if item == 2:
            raise LookupError("no such thing")
        done.append(item)

    with pytest.raises(LookupError, match="no such thing"):
        await run_concurrently(range(1000), do, limit=1)
    assert done == [0, 1]


async def test_without_items_it_returns_at_once():
    await run_concurrently([], lambda _: asyncio.sleep(0), limit=5)
