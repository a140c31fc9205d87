"""An edge as it is usually written in Python: Starlette routes, generated stubs, google.protobuf.json_format."""

import importlib
import sys
from typing import Any

import grpc
import uvicorn
from google.protobuf import json_format
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def build(folder: str, back_end: int) -> Starlette:
    sys.path.insert(0, folder)
    pb: Any = importlib.import_module("bench.v1.orders_pb2")
    stubs: Any = importlib.import_module("bench.v1.orders_pb2_grpc")
    stub: Any = None

    def service() -> Any:
        nonlocal stub
        if stub is None:
            stub = stubs.OrderServiceStub(grpc.aio.insecure_channel(f"127.0.0.1:{back_end}"))
        return stub

    def answer(message: Any) -> Response:
        text = json_format.MessageToJson(message, indent=None, always_print_fields_with_no_presence=True)
        return Response(text, media_type="application/json")

    async def get(request: Request) -> Response:
        return answer(await service().GetOrder(pb.GetOrderRequest(name="orders/" + request.path_params["order"])))

    async def list_orders(request: Request) -> Response:
        size = int(request.query_params.get("pageSize", "0"))
        return answer(await service().ListOrders(pb.ListOrdersRequest(page_size=size)))

    async def create(request: Request) -> Response:
        return answer(await service().CreateOrder(json_format.Parse(await request.body(), pb.Order())))

    return Starlette(
        routes=[
            Route("/v1/orders/{order}", get),
            Route("/v1/orders", list_orders),
            Route("/v1/orders", create, methods=["POST"]),
        ]
    )


if __name__ == "__main__":
    app = build(sys.argv[1], int(sys.argv[2]))
    uvicorn.run(app, port=int(sys.argv[3]), log_level="warning", access_log=False, loop="uvloop", http="httptools")
