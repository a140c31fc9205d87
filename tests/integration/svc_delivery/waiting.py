"""Waiting for what happens in the background, with a deadline."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def until(look: Callable[[], Awaitable[T]], wanted: Callable[[T], bool]) -> T:
    """Returns what `look` sees once it is what is wanted; TimeoutError when that takes too long."""
    async with asyncio.timeout(60):
        while True:
            if wanted(seen := await look()):
                return seen
            await asyncio.sleep(0.02)
