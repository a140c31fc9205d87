"""Servers that are unavailable for a while: nothing is lost or has to be restarted, and clients get true statuses."""

import asyncio
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import grpc
import pytest

from chassis import Database, outbox
from chassis.cancellation import cancel_and_wait
from chassis.events.consumer import Consumer
from chassis.events.redis_bus import RedisBus
from chassis.events.relay import Relay
from chassis.postgres.database import UNAVAILABLE_ERRORS
from chassis.postgres.migrate import migrate
from chassis.testing import eventually
from mesh.stack.data_dirs import remove_data_dir, socket_folder, unprivileged_account
from mesh.stack.servers.postgres import Postgres
from mesh.stack.servers.redis import Redis
from shop.inventory.v1 import inventory_events_pb2 as events
from shop.inventory.v1 import inventory_service_pb2 as pb

PATIENCE = 60.0


class Server:
    """A server that may be stopped and started again in the same place."""

    def __init__(self, server):
        self._server = server
        self.url = ""

    async def start(self):
        await self._server.__aenter__()
        self.url = self._server.url

    async def stop(self):
        await self._server.__aexit__()


@pytest.fixture
async def postgres_alone(repository):
    """A durable PostgreSQL of this test's own, with the chassis's tables and one for effects."""
    with tempfile.TemporaryDirectory() as name, socket_folder(unprivileged_account()) as sockets:
        Path(name).chmod(0o711)
        server = Server(Postgres(Path(name) / "postgres", sockets))
        await server.start()
        await migrate(server.url)
        connection = await asyncpg.connect(server.url)
        await connection.execute("CREATE TABLE applied (id bigint GENERATED ALWAYS AS IDENTITY, what int)")
        await connection.close()
        yield server
        await server.stop()
        remove_data_dir(Path(name) / "postgres")


@pytest.fixture
async def redis_alone(tmp_path):
    with socket_folder(None) as sockets:
        server = Server(Redis(tmp_path, sockets))
        await server.start()
        yield server
        await server.stop()


@asynccontextmanager
async def working(*work):
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
        assert not any(task.done() for task in tasks), "background work has ended"
    finally:
        await cancel_and_wait(*tasks)


async def on_stock_changed(tx, event):
    await tx.execute("INSERT INTO applied (what) VALUES ($1)", event.available)


async def tell(database, *figures):
    async with database.transaction() as tx:
        await outbox.add(tx, *(events.StockChanged(sku="a", available=figure) for figure in figures))


async def has_applied(database, figures):
    rows = await database.pool.fetch("SELECT what FROM applied ORDER BY id")
    return [row["what"] for row in rows] == figures


async def test_relay_consumer_and_change_feed_survive_every_server(postgres_alone, redis_alone):
    woken = asyncio.Event()

    async def watch(database):
        async for _ in database.change_feed.subscribe(["a"]):
            woken.set()

    async with (
        Database.open(postgres_alone.url) as database,
        RedisBus.open(redis_alone.url) as bus,
        working(
            Relay(database, bus, "svc_inventory").run(),
            Consumer("svc_toy", database, bus, {events.StockChanged: on_stock_changed}).run(),
            database.change_feed.listen(database.pool),
            watch(database),
        ),
    ):
        await tell(database, 1)
        await eventually(lambda: has_applied(database, [1]))

        await redis_alone.stop()
        await tell(database, 2, 3)  # events wait in the outbox
        await redis_alone.start()
        await eventually(lambda: has_applied(database, [1, 2, 3]), seconds=PATIENCE)

        await postgres_alone.stop()
        with pytest.raises(UNAVAILABLE_ERRORS):
            await tell(database, 0)
        await postgres_alone.start()
        await tell(database, 4)
        await eventually(lambda: has_applied(database, [1, 2, 3, 4]), seconds=PATIENCE)
        assert await database.pool.fetchval("SELECT count(*) FROM dead_letter") == 0

        await postgres_alone.stop()
        await redis_alone.stop()
        await redis_alone.start()
        await postgres_alone.start()
        woken.clear()
        await tell(database, 5)
        await eventually(lambda: has_applied(database, [1, 2, 3, 4, 5]), seconds=PATIENCE)
        await eventually(woken.is_set, seconds=PATIENCE)


async def test_while_the_database_is_unavailable_nothing_is_acknowledged(postgres_alone, redis_alone):
    async with Database.open(postgres_alone.url) as database, RedisBus.open(redis_alone.url) as bus:
        await tell(database, 1, 2)
        async with working(Relay(database, bus, "svc_inventory").run()):
            await eventually(lambda: is_drained(database))
        await postgres_alone.stop()
        consumer = Consumer("svc_toy", database, bus, {events.StockChanged: on_stock_changed})
        async with working(consumer.run()):
            await eventually(lambda: pending(bus))
            await postgres_alone.start()
            await eventually(lambda: has_applied(database, [1, 2]), seconds=PATIENCE)
        assert await database.pool.fetchval("SELECT count(*) FROM dead_letter") == 0


async def is_drained(database):
    return not await database.pool.fetchval("SELECT count(*) FROM outbox WHERE publish_time IS NULL")


async def pending(bus):
    """Events that were delivered and not acknowledged."""
    groups = await bus._client.xinfo_groups(bus._prefix + "shop.inventory.v1.Stock")
    return sum(group["pending"] for group in groups)


async def test_a_call_without_the_database_is_unavailable_and_is_served_later(serve, connect, failure, postgres_alone):
    """F06."""
    metadata = (("x-shop-caller", "edge"),)
    async with Database.open(postgres_alone.url) as database:

        async def get_stock(request, context):
            async with database.connection() as connection:
                return pb.Stock(available=await connection.fetchval("SELECT 7"))

        async with serve(GetStock=get_stock) as app, connect(app.address) as call:
            assert (await call.GetStock(pb.GetStockRequest(sku="a"), metadata=metadata)).available == 7
            await postgres_alone.stop()
            for _ in range(3):
                failed = await failure(call.GetStock(pb.GetStockRequest(sku="a"), metadata=metadata))
                assert failed.code is grpc.StatusCode.UNAVAILABLE
                assert "/" not in failed.message
            await postgres_alone.start()
            assert (await call.GetStock(pb.GetStockRequest(sku="a"), metadata=metadata)).available == 7
