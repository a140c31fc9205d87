"""A batch of bookings that other processes overtake."""

import asyncio
import uuid

import asyncpg
import pytest

from chassis import Database, Lane
from chassis.testing import eventually
from svc_delivery.domain import Book
from svc_delivery.domain_zone import Destination
from svc_delivery.service import DeliveryService
from tests.integration.database_control import until_blocked

SLOT = """
INSERT INTO slot (slot_id, zone_id, start_time, end_time, cutoff_time, capacity)
SELECT $1, 'bkk', now() + '2 days', now() + '2 days 2 hours', now() + '1 day', 5"""
CHANGE = "UPDATE slot SET version = version + 1"


@pytest.fixture
async def other_process(database):
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


async def waits_or_is_done(connection, task):
    return task.done() or await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted")


async def test_a_batch_that_had_a_conflict_has_none_again(create_zone, database, rows, other_process):
    """A version check alone lets a batch lose any number of times."""
    await create_zone()
    slot_id, tries = uuid.uuid4().hex, []
    await rows.execute(SLOT, slot_id)
    async with Database.open(database, 2) as db:
        service = DeliveryService(db, days_ahead=0)

        async def counted_apply(commands):
            tries.append(commands.had_conflict)
            return await service._apply(commands)

        order = Book(order_id="o-1", slot_id=slot_id, destination=Destination(country_code="TH", postal_code="10500"))
        async with other_process.transaction():
            async with rows.transaction():
                await rows.execute(CHANGE)
                booking = asyncio.create_task(Lane(counted_apply).submit(order))
                await until_blocked(rows)
                second = asyncio.create_task(other_process.execute(CHANGE))
                await until_blocked(rows, 2)
            await second
            await eventually(lambda: waits_or_is_done(rows, booking), seconds=8)
        assert (await booking).slot_id == slot_id
    assert tries == [False, True]
