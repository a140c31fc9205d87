"""What one call costs a service: svc_inventory as its own process, called over gRPC, on servers that are durable.

`Health/Check` passes no pipeline and reads nothing: it is what grpc.aio takes by itself.
"""

import asyncio
import json
import os
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncpg
import grpc
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc
from redis.asyncio import from_url

from bench.cpu import Meter, drive, table
from bench.servers import ROOT, durable_postgres, folder
from mesh.stack.servers.redis import Redis
from shop.inventory.v1 import inventory_service_pb2 as pb
from shop.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub

SECONDS = 3.0
EDGE, ORDER = (("x-shop-caller", "edge"),), (("x-shop-caller", "svc_order"),)
FILL = """
INSERT INTO stock (sku, location_id, on_hand, version)
SELECT 'S' || n, 'bkk', 1000000000, 0 FROM generate_series(0, 99) n"""

Call = Callable[[], Awaitable[object]]


def calls(channel: grpc.aio.Channel) -> dict[str, Call]:
    """The calls that are measured, by name."""
    health, inventory = health_pb2_grpc.HealthStub(channel), InventoryServiceStub(channel)
    many = pb.BatchGetStockRequest(skus=[f"S{number}" for number in range(20)])

    def reserve() -> Awaitable[object]:
        key = uuid.uuid4().hex
        request = pb.ReserveStockRequest(reservation_id=key, order_id=key, lines=[pb.StockLine(sku="S0", quantity=1)])
        return inventory.ReserveStock(request, metadata=ORDER)

    return {
        "Health/Check": lambda: health.Check(health_pb2.HealthCheckRequest()),
        "GetStock": lambda: inventory.GetStock(pb.GetStockRequest(sku="S0"), metadata=EDGE),
        "BatchGetStock of 20": lambda: inventory.BatchGetStock(many, metadata=EDGE),
        "ReserveStock, one hot SKU": reserve,
    }


async def main() -> None:
    rows = []
    async with service() as (address, pids), grpc.aio.insecure_channel(address) as channel:
        for waiting in (1, 64):
            for name, call in calls(channel).items():
                await drive(call, waiting=waiting, seconds=0.3)
                meter = Meter(pids)
                with meter:
                    run = await drive(call, waiting=waiting, seconds=SECONDS)
                cost = meter.per_request(run.requests)
                rows.append((name, waiting, *cost.values(), run.per_second, f"{run.percentile(50):.2f}"))
    print(table(("call", "waiting", *(f"CPU us: {name}" for name in cost), "a second", "p50 ms"), rows))


@asynccontextmanager
async def service() -> AsyncIterator[tuple[str, dict[str, int]]]:
    """svc_inventory on a PostgreSQL and a Redis of its own: its address, and the processes by name."""
    async with AsyncExitStack() as stack:
        url, postgres_pid = await stack.enter_async_context(durable_postgres("svc_inventory"))
        place = stack.enter_context(folder())
        redis = await stack.enter_async_context(Redis(place / "redis"))
        connection = await asyncpg.connect(url)
        await connection.execute(FILL)
        await connection.close()
        log = stack.enter_context((place / "service.log").open("w"))
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "svc_inventory"),
            cwd=ROOT,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": os.pathsep.join((".", "gen")),
                "DATABASE_URL": url,
                "REDIS_URL": redis.url,
            },
            stderr=log,
        )
        stack.push_async_callback(child.wait)
        stack.callback(child.terminate)
        address = await serving_at(place / "service.log")
        async with from_url(redis.url, protocol=2) as client:
            redis_pid = (await client.info("server"))["process_id"]
        yield address, {"svc_inventory": child.pid, "postgres": postgres_pid, "redis": redis_pid}


async def serving_at(log: Path) -> str:
    """Wait until the service says where it serves."""
    async with asyncio.timeout(30):
        while True:
            lines = map(json.loads, log.read_text().splitlines())  # noqa: ASYNC240  a few lines
            if address := next((line["address"] for line in lines if line["message"] == "serving"), None):
                return address
            await asyncio.sleep(0.05)


def run(_words: Sequence[str]) -> None:
    uvloop.run(main())


if __name__ == "__main__":
    run(sys.argv[1:])
