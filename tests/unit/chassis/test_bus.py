"""What both buses share."""

import asyncio
from contextlib import suppress

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from chassis import bus_kafka
from chassis.bus import end


async def test_a_task_that_loses_its_first_cancellation_is_ended_all_the_same():
    losing = asyncio.Event()

    async def work() -> None:
        losing.set()
        with suppress(asyncio.CancelledError):  # as asyncio.wait_for does in Python 3.11, when it is just done
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await losing.wait()
    async with asyncio.timeout(30):
        await end(task)
    assert task.cancelled()


async def test_tasks_that_have_ended_or_failed_by_themselves_are_left_as_they_are():
    async def fail() -> None:
        raise OSError("gone")

    ended, failed = asyncio.create_task(asyncio.sleep(0)), asyncio.create_task(fail())
    await asyncio.wait([ended, failed])
    await end(ended, failed)
    assert ended.result() is None
    assert isinstance(failed.exception(), OSError)


async def test_the_kafka_producer_is_idempotent_and_waits_for_all_in_sync_replicas(monkeypatch):
    """One broker acknowledges the same with other settings, and loses events only when one of several fails."""
    made = []

    class Recorded(AIOKafkaProducer):
        def __init__(self, **options):
            super().__init__(**options)
            made.append(options)

    monkeypatch.setattr(bus_kafka, "AIOKafkaProducer", Recorded)
    async with bus_kafka.KafkaBus.open("127.0.0.1:1") as bus:
        with pytest.raises(KafkaError):
            await bus._start_producer()
    (options,) = made
    assert (options["acks"], options["enable_idempotence"]) == ("all", True)
