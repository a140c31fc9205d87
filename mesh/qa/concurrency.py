"""Runs one coroutine function for many items with limited concurrency."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


async def run_concurrently(items: Iterable[T], do: Callable[[T], Awaitable[None]], *, limit: int) -> None:
    """Run `do` for every item, at most `limit` at a time; the first exception cancels the rest and is raised."""
    rest = iter(items)

    async def work() -> None:
        for item in rest:
            await do(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(limit):
                group.create_task(work())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
