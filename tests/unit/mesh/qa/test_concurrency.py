"""Doing one thing to many: how many at a time, and what a failure does."""

import asyncio

import pytest

from mesh.qa.concurrency import run_concurrently


async def test_every_item_is_done_and_no_more_at_a_time_than_allowed():
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


async def test_the_first_failure_ends_all_and_is_raised_as_it_is():
    done = []

    async def do(item):
        if item == 2:
            raise LookupError("no such thing")
        done.append(item)

    with pytest.raises(LookupError, match="no such thing"):
        await run_concurrently(range(1000), do, limit=1)
    assert done == [0, 1]


async def test_nothing_to_do_is_done_at_once():
    await run_concurrently([], lambda _: asyncio.sleep(0), limit=5)
