"""The back end of all edges: it answers with bytes made beforehand, so that its own cost is small and the same.

Run as `python -m bench.edge.back_end FOLDER LISTEN`, FOLDER holding the compiled protos.
"""

# ruff: noqa: ARG001 - gRPC hands every handler a context, and this one its own request

import asyncio
import importlib
import sys
from collections.abc import AsyncIterator

import grpc
import uvloop

NAME = "bench.v1.OrderService"


def order(number: int):
    """An order with five lines."""
    pb = importlib.import_module("bench.v1.orders_pb2")
    lines = [
        pb.OrderLine(
            sku=f"SKU-{line:05d}",
            title=f"A product title number {line}",
            quantity=line + 1,
            unit_price=pb.Money(currency_code="THB", units=100 + line, nanos=500_000_000),
            total=pb.Money(currency_code="THB", units=(line + 1) * 100),
        )
        for line in range(5)
    ]
    made = pb.Order(name=f"orders/{number}", customer="users/42", state=2, lines=lines, version=7)
    made.total.currency_code, made.total.units = "THB", 1234
    made.create_time.seconds = 1_780_000_000
    made.labels.update(channel="web", region="th-bkk")
    return made


async def main(folder: str, listen: str) -> None:
    sys.path.insert(0, folder)
    one = order(1).SerializeToString()
    pb = importlib.import_module("bench.v1.orders_pb2")
    twenty = pb.ListOrdersResponse(orders=[order(number) for number in range(20)]).SerializeToString()

    async def get(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return one

    async def list_orders(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return twenty

    async def watch(request: bytes, context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        yield one
        await asyncio.Event().wait()

    handlers = {
        "GetOrder": grpc.unary_unary_rpc_method_handler(get),
        "ListOrders": grpc.unary_unary_rpc_method_handler(list_orders),
        "CreateOrder": grpc.unary_unary_rpc_method_handler(get),
        "WatchOrder": grpc.unary_stream_rpc_method_handler(watch),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, handlers),))
    port = server.add_insecure_port(listen)
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
