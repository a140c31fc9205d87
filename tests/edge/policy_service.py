"""A back end whose protos use `shop.options.v1`. Run as `python -m tests.edge.policy_service FOLDER LISTEN`."""

# ruff: noqa: ARG002, N802 - gRPC names methods in capitals and hands every one a context

import asyncio
import importlib
import sys
from typing import Any

import grpc

from tests.edge.library import fail


class PolicyService:
    """Echoes requests and metadata."""

    def __init__(self) -> None:
        self.pb: Any = importlib.import_module("edgetest.policy.v1.policy_pb2")

    async def echo(self, request: Any, context: Any) -> Any:
        metadata = {key: str(value) for key, value in context.invocation_metadata()}
        return self.pb.EchoResponse(text=request.text, metadata=metadata, time_remaining=context.time_remaining())

    async def Browse(self, request: Any, context: Any) -> Any:
        return await self.echo(request, context)

    async def Login(self, request: Any, context: Any) -> Any:
        return await self.echo(request, context)

    async def GetAccount(self, request: Any, context: Any) -> Any:
        return await self.echo(request, context)

    async def Tick(self, request: Any, context: Any) -> Any:
        await context.send_initial_metadata((("ratelimit-policy", '"rpc";q=3;w=60'), ("ratelimit", '"rpc";r=1;t=2')))
        if request.text:
            await fail(context, 8, "too many calls", ["error_info", "retry_info"], request.text)
        return await self.echo(request, context)

    async def GetPublic(self, request: Any, context: Any) -> Any:
        if request.text == "kept":
            await context.send_initial_metadata((("cache-control", "public, max-age=77"),))
        return self.pb.EchoResponse(text=request.text)

    async def Refuse(self, request: Any, context: Any) -> Any:
        await fail(context, 3, "no", ["error_info"], request.text)

    async def Hang(self, request: Any, context: Any) -> Any:
        await asyncio.Event().wait()

    async def Internal(self, request: Any, context: Any) -> Any:
        return await self.echo(request, context)


async def main(folder: str, listen: str) -> None:
    sys.path.insert(0, folder)
    server = grpc.aio.server()
    stubs = importlib.import_module("edgetest.policy.v1.policy_pb2_grpc")
    stubs.add_PolicyServiceServicer_to_server(PolicyService(), server)
    port = server.add_insecure_port(listen)
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
