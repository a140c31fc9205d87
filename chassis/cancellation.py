"""Cancellation of asyncio tasks: detect it, shield work from it, and end tasks for certain."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")

_CANCEL_AGAIN_SECONDS = 0.5


def cancelled_from_outside() -> bool:
    """Return whether this task was cancelled, as opposed to a CancelledError that leaked out of an inner task.

    grpc.aio sends no reply when a handler raises CancelledError by itself, and
    `context.cancelled()` is still False when the client is the cause; the task's own count is the one reliable sign.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def run_shielded(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` to its end even when this task is cancelled; raise the cancellation only then."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        raise


async def cancel_and_wait(*tasks: asyncio.Task[None]) -> None:
    """Cancel tasks until they have ended, even when this task is cancelled; raise that cancellation only then.

    One cancellation may not do: in Python 3.11 a cancellation that arrives just as the work inside asyncio.wait_for
    ends is lost, and the clients of the buses use wait_for.
    """
    if tasks:
        await run_shielded(_cancel_until_ended(set(tasks)))


async def _cancel_until_ended(pending: set[asyncio.Task[None]]) -> None:
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_SECONDS)
