"""Brokers that are killed in the middle of a batch: every event is delivered, in its key's order."""

import asyncio
import os
import signal
from collections import defaultdict
from contextlib import AsyncExitStack, aclosing

import pytest

from chassis import outbox
from chassis.cancellation import cancel_and_wait
from chassis.events.consumer import Consumer
from chassis.events.kafka_bus import KafkaBus
from chassis.events.redis_bus import RedisBus
from chassis.events.relay import Relay
from chassis.testing import eventually
from mesh.stack.data_dirs import socket_folder
from mesh.stack.ports import Ports, free_base
from mesh.stack.process import running
from mesh.stack.servers import kafka
from mesh.stack.servers.redis import Redis
from shop.inventory.v1 import inventory_events_pb2 as events

TOPIC = "shop.inventory.v1.Stock"
TOLD, KEYS = 2_000, 7
PATIENCE = 60.0


class Broker:
    """A broker that may be killed and started again in the same place; `bus()` opens its bus."""

    def __init__(self, server, bus):
        self._server = server
        self._exit = AsyncExitStack()
        self._process = None
        self.bus = bus

    async def start(self):
        program = self._server.program()
        self._process = await self._exit.enter_async_context(running(program, self._server.folder / "broker.log"))

    async def kill(self):
        os.kill(self._process.pid, signal.SIGKILL)
        await self.stop()

    async def stop(self):
        await self._exit.aclose()


@pytest.fixture
async def on_redis(tmp_path):
    with socket_folder(None) as sockets:
        server = Redis(tmp_path, sockets)
        broker = Broker(server, lambda: RedisBus.open(server.url))
        await broker.start()
        yield broker
        await broker.stop()


@pytest.fixture
async def on_kafka(tmp_path):
    if problem := kafka.missing():
        pytest.skip(f"NOT TESTED on Kafka: {problem}")
    ports = Ports(free_base())
    server = kafka.Kafka(tmp_path, port=ports.kafka, controller_port=ports.kafka_controller)
    broker = Broker(server, lambda: KafkaBus.open(server.bootstrap))
    await broker.start()
    yield broker
    await broker.stop()


@pytest.fixture(params=["on_redis", pytest.param("on_kafka", marks=[pytest.mark.kafka])])
def broker(request):
    return request.getfixturevalue(request.param)


async def published(database):
    return await database.pool.fetchval("SELECT count(*) FROM outbox WHERE publish_time IS NOT NULL")


async def arrived(bus, ids):
    """Each event at its first arrival, once all of these have arrived."""
    came = {}
    async with (
        asyncio.timeout(PATIENCE),
        bus.subscribe("g", [TOPIC]) as subscription,
        aclosing(subscription.__aiter__()) as batches,
    ):
        while not came.keys() >= ids:
            came |= {one.id: one for one in await anext(batches) if one.id not in came}
    return came


async def test_a_broker_killed_in_the_middle_of_a_batch_loses_and_reorders_nothing(broker, database):
    async with database.transaction() as tx:
        told = [events.StockChanged(sku=f"sku-{number % KEYS}", available=number) for number in range(TOLD)]
        await outbox.add(tx, *told)
    async with broker.bus() as bus:
        async with database.transaction() as tx:
            await tx.execute("SELECT FROM outbox ORDER BY id DESC LIMIT 1 FOR UPDATE")  # however quick the relay is
            relay = asyncio.create_task(Relay(database, bus, "svc_inventory").run())
            await eventually(lambda: published(database), seconds=PATIENCE)
            await broker.kill()
            assert 0 < await published(database) < TOLD, "it was killed in the middle"
        await broker.start()
        async with asyncio.timeout(PATIENCE):
            while await published(database) < TOLD:
                await asyncio.sleep(0.05)
        await cancel_and_wait(relay)
    ids = {str(row["event_id"]) for row in await database.pool.fetch("SELECT event_id FROM outbox")}
    async with broker.bus() as bus:
        came = await arrived(bus, ids)
    assert came.keys() == ids
    figures = defaultdict(list)
    for one in came.values():
        figures[one.key].append(events.StockChanged.FromString(one.payload).available)
    assert figures == {f"sku-{key}": list(range(key, TOLD, KEYS)) for key in range(KEYS)}


@pytest.mark.kafka
async def test_a_service_with_unsent_events_ends_although_the_broker_is_unavailable(on_kafka, database):
    async with on_kafka.bus() as bus:
        relay = asyncio.create_task(Relay(database, bus, "svc_inventory").run())
        consumer = asyncio.create_task(Consumer("svc_toy", database, bus, {events.StockChanged: ignore}).run())
        async with database.transaction() as tx:
            await outbox.add(tx, events.StockChanged(sku="a"))
        await eventually(lambda: database.pool.fetchval("SELECT count(*) FROM inbox"), seconds=PATIENCE)
        await eventually(lambda: published(database), seconds=PATIENCE)
        await on_kafka.kill()
        async with database.transaction() as tx:
            await outbox.add(tx, *(events.StockChanged(sku="a", available=number) for number in range(1_000)))
        await eventually(lambda: waits_to_send(bus))
        async with asyncio.timeout(PATIENCE / 2):
            await cancel_and_wait(relay, consumer)
            await bus._drop_producer()
    assert await published(database) == 1


async def ignore(_tx, _event):
    pass


def waits_to_send(bus):
    accumulator = bus._producer._message_accumulator
    return accumulator._batches or accumulator._pending_batches
