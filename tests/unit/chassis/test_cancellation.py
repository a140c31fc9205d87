"""Cancellation of tasks until they have ended."""

import asyncio
from contextlib import suppress

from chassis.cancellation import cancel_and_wait


async def test_a_task_that_loses_its_first_cancellation_is_cancelled_again():
    losing = asyncio.Event()

    async def work() -> None:
        losing.set()
        with suppress(asyncio.CancelledError):  # as asyncio.wait_for does in Python 3.11, when it is just done
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await losing.wait()
    async with asyncio.timeout(30):
        await cancel_and_wait(task)
    assert task.cancelled()


async def test_a_caller_that_is_cancelled_still_waits_for_the_end_of_the_tasks():
    losing = asyncio.Event()

    async def work() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        losing.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)  # begins
    caller = asyncio.create_task(cancel_and_wait(task))
    await losing.wait()
    caller.cancel()
    async with asyncio.timeout(30):
        await asyncio.wait([caller])
    assert caller.cancelled()
    assert task.cancelled()


async def test_tasks_that_have_ended_or_failed_are_left_as_they_are():
    async def fail() -> None:
        raise OSError("gone")

    ended, failed = asyncio.create_task(asyncio.sleep(0)), asyncio.create_task(fail())
    await asyncio.wait([ended, failed])
    await cancel_and_wait(ended, failed)
    assert ended.result() is None
    assert isinstance(failed.exception(), OSError)
