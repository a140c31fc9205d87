"""What the chassis adds to a call: a handler that only answers, against Health/Check, which passes no pipeline.

`--against FOLDER` measures another checkout as well, in turns with this one.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.cpu import Meter, drive, table
from bench.servers import ROOT
from shop.inventory.v1 import inventory_service_pb2 as pb
from shop.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub
from shop.order.v1 import order_service_pb2 as order_pb
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub

#: As the edge calls: with the client's address, a trace and the contract's deadline.
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
EDGE = (("x-shop-caller", "edge"), ("x-forwarded-for", "192.0.2.7"), ("traceparent", TRACE))
TIMEOUT = 2.0
BARE = "Health/Check: grpc.aio alone"

#: The process that is measured. It prints its address and a user's token.
SERVER = """
import asyncio, logging, sys
from chassis import Settings, require_owner
from chassis.telemetry import start_logging
from chassis.testing import Issuer, serving
from shop.inventory.v1 import inventory_service_pb2 as pb
from shop.inventory.v1.inventory_service_pb2_grpc import InventoryServiceServicer
from shop.order.v1 import order_service_pb2 as order_pb
from shop.order.v1.order_errors import OrderNotFound
from shop.order.v1.order_service_pb2_grpc import OrderServiceServicer
import uvloop

class Stock(InventoryServiceServicer):
    async def GetStock(self, request, context):
        return pb.Stock(sku=request.sku, available=7)

class Orders(OrderServiceServicer):
    async def GetOrder(self, request, context):
        require_owner("user-1", OrderNotFound(order_id=request.order_id))
        return order_pb.Order(order_id=request.order_id)

async def compose(app, settings):
    app.serve(Stock(), Orders())

async def main():
    issuer = Issuer()
    start_logging("svc_bench", "INFO")
    async with serving("svc_bench", Settings(max_concurrent_rpcs=10_000), compose, issuer) as app:
        print(app.address, issuer.token("user-1"), flush=True)
        await asyncio.Event().wait()

uvloop.run(main())
"""

Call = Callable[[], Awaitable[object]]


def calls(channel: grpc.aio.Channel, token: str) -> dict[str, Call]:
    """Return the calls that are measured, by name."""
    health, stock, orders = (
        health_pb2_grpc.HealthStub(channel),
        InventoryServiceStub(channel),
        OrderServiceStub(channel),
    )
    as_user = (*EDGE, ("authorization", f"Bearer {token}"))
    return {
        BARE: lambda: health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT),
        "GetStock: any caller": lambda: stock.GetStock(pb.GetStockRequest(sku="S0"), metadata=EDGE, timeout=TIMEOUT),
        "GetOrder: the owner": lambda: orders.GetOrder(
            order_pb.GetOrderRequest(order_id="order-1"), metadata=as_user, timeout=TIMEOUT
        ),
    }


async def main(options: argparse.Namespace) -> None:
    costs: dict[tuple[str, str], list[float]] = defaultdict(list)
    places = {"this": ROOT, **({"other": options.against} if options.against else {})}
    async with AsyncExitStack() as stack:
        running = {name: await stack.enter_async_context(serving(place)) for name, place in places.items()}
        for _ in range(options.rounds):
            for place, (pid, channel, token) in running.items():
                for name, call in calls(channel, token).items():
                    with Meter({"server": pid}) as meter:
                        run = await drive(call, waiting=options.waiting, seconds=options.seconds)
                    costs[place, name].append(meter.per_request(run.requests)["server"])
    rows: list[tuple[object, ...]] = []
    for (place, name), seen in costs.items():
        added = [one - bare for one, bare in zip(seen, costs[place, BARE], strict=True)]
        rows.append((place, name, statistics.median(seen), statistics.median(added)))
    print(table(("checkout", "call", "CPU us of the server", "more than bare"), rows))


@asynccontextmanager
async def serving(checkout: Path) -> AsyncIterator[tuple[int, grpc.aio.Channel, str]]:
    """Run the server with the code of a checkout; yield its process id, a channel and a token."""
    with tempfile.TemporaryFile() as log:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", SERVER),
            cwd=checkout,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join((".", "gen"))},
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
    try:
        assert child.stdout is not None
        address, token = (await child.stdout.readline()).decode().split()
        async with grpc.aio.insecure_channel(address) as channel:
            yield child.pid, channel, token
    finally:
        child.terminate()
        await child.wait()


def run(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="bench.pipeline", description=__doc__)
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each call")
    parser.add_argument("--waiting", type=int, default=64)
    uvloop.run(main(parser.parse_args(words)))


if __name__ == "__main__":
    run(sys.argv[1:])
