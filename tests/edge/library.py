"""The back end of the edge's tests: a real grpc.aio server that echoes its requests.

Run as `python -m tests.edge.library FOLDER LISTEN`, FOLDER being where compile.python_modules put the modules.
"""

# ruff: noqa: ARG002, N802 - gRPC names methods in capitals and hands every one a context

import asyncio
import importlib
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.duration_pb2 import Duration
from google.protobuf.empty_pb2 import Empty
from google.rpc import error_details_pb2 as details_pb2
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio


class Library:
    """Implements edgetest.v1.Library."""

    def __init__(self) -> None:
        self.pb: Any = importlib.import_module("edgetest.v1.library_pb2")
        #: The names of the calls that ended by being cancelled.
        self.cancelled: list[str] = []
        #: The names of those that were begun.
        self.begun: list[str] = []
        #: How many messages each stream has sent.
        self.sent: dict[str, int] = {}

    async def ListEnded(self, request: Any, context: Any) -> Any:
        return self.pb.Ended(cancelled=self.cancelled, sent=self.sent, begun=self.begun)

    async def Echo(self, request: Any, context: Any) -> Any:
        return request

    async def GetShelf(self, request: Any, context: Any) -> Any:
        if request.name == "nothing":
            return self.pb.Shelf()
        shelf = self.pb.Shelf(name=request.name, s="théme", n=3, etag="v7" if "tagged" in request.name else "")
        if request.name.endswith("unknown-any"):
            shelf.extra.CopyFrom(PackedAny(type_url="type.googleapis.com/nope.Nope", value=b"\x08\x01"))
        return shelf

    async def CancelShelf(self, request: Any, context: Any) -> Any:
        return self.pb.Shelf(name=request.name, s="cancelled")

    async def ListShelves(self, request: Any, context: Any) -> Any:
        count = int(request.name or "2")
        shelves = [
            self.pb.Shelf(name=f"shelves/{n}", n=n, tags=["a", "b"], labels={"k": "v"}) for n in range(1, count + 1)
        ]
        return self.pb.ShelfList(shelves=shelves, next_page_token="next")

    async def CreateShelf(self, request: Any, context: Any) -> Any:
        return request

    async def UpdateShelf(self, request: Any, context: Any) -> Any:
        return request

    async def PatchStar(self, request: Any, context: Any) -> Any:
        return request

    async def DeleteShelf(self, request: Any, context: Any) -> Any:
        return Empty()

    async def GetBook(self, request: Any, context: Any) -> Any:
        return request

    async def PutValue(self, request: Any, context: Any) -> Any:
        return request

    async def Fail(self, request: Any, context: Any) -> Any:
        await fail(context, request.code, request.message, list(request.details), request.reason)

    async def Inspect(self, request: Any, context: Any) -> Any:
        metadata = {
            key: value.hex() if isinstance(value, bytes) else value for key, value in context.invocation_metadata()
        }
        await context.send_initial_metadata(
            (("etag", '"from-md"'), ("x-secret", "hidden"), ("x-shown", "yes"), ("x-shown-bin", b"\x01\x02"))
        )
        context.set_trailing_metadata((("x-shown", "trailer"), ("x-secret", "hidden")))
        return self.pb.Seen(metadata=metadata, time_remaining=context.time_remaining() or -1)

    async def WhoAmI(self, request: Any, context: Any) -> AsyncIterator[Any]:
        yield self.pb.Seen(metadata={key: str(value) for key, value in context.invocation_metadata()})

    async def Sleep(self, request: Any, context: Any) -> Any:
        self.begun.append(request.name)
        try:
            await asyncio.sleep(request.seconds)
        except asyncio.CancelledError:
            self.cancelled.append(request.name)
            raise
        return Empty()

    async def Download(self, request: Any, context: Any) -> Any:
        return HttpBody(content_type="image/png", data=b"\x89PNG\x00" + request.name.encode())

    async def Upload(self, request: Any, context: Any) -> Any:
        return HttpBody(content_type=request.file.content_type, data=request.name.encode() + b":" + request.file.data)

    async def Raw(self, request: Any, context: Any) -> Any:
        return HttpBody(content_type=request.content_type or "none/none", data=request.data)

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.begun.append(request.name)
        first = int(request.resume_token) + 1 if request.resume_token else 1
        try:
            for n in range(first, first + request.count):
                yield self.pb.WatchResponse(name=request.name, n=n, resume_token=str(n))
                self.sent[request.name] = n
            if request.fail_code:
                await fail(context, request.fail_code, "broken", ["error_info", "named"], "STREAM_BROKEN")
            if request.hold:
                await asyncio.Event().wait()
        except (asyncio.CancelledError, GeneratorExit):  # the latter when it came while a message was being sent
            self.cancelled.append(request.name)
            raise

    async def DownloadParts(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for n in range(request.count):
            yield HttpBody(content_type="text/csv" if n == 0 else "text/other", data=f"part{n};".encode())
        if request.fail_code:
            await fail(context, request.fail_code, "broken", [], "")

    async def Collect(self, requests: AsyncIterator[Any], context: Any) -> Any:
        texts = []
        total = 0
        try:
            async for note in requests:
                texts.append(note.text)
                total += note.n
        except asyncio.CancelledError:
            self.cancelled.append("collect")
            raise
        return self.pb.Note(text=",".join(texts), n=total)

    async def Chat(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        try:
            async for note in requests:
                if note.text == "fail":
                    await fail(context, 9, "no more", ["error_info"], "CHAT_OVER")
                yield self.pb.Note(text=f"re: {note.text}", n=note.n + 1)
        except asyncio.CancelledError:
            self.cancelled.append("chat")
            raise

    async def GetUnreadable(self, request: Any, context: Any) -> Any:
        return PackedAny(type_url="type.googleapis.com/nope.Nope", value=b"\x08\x01")

    async def Unbound(self, request: Any, context: Any) -> Any:
        return self.pb.Shelf(name=request.name)


async def fail(context: Any, code: int, message: str, kinds: list[str], reason: str) -> None:
    """Abort with a status that carries the details of these kinds."""
    made = {
        "bad_request": details_pb2.BadRequest(field_violations=[{"field": "item.s", "description": "is too long"}]),
        "named": details_pb2.BadRequest(field_violations=[{"field": "resume_token", "description": "is old"}]),
        "error_info": details_pb2.ErrorInfo(reason=reason or "TEST", domain="test", metadata={"a": "b"}),
        "retry_info": details_pb2.RetryInfo(retry_delay=Duration(seconds=2, nanos=500_000_000)),
        "localized": details_pb2.LocalizedMessage(locale="vi", message="hỏng"),
    }
    packed = []
    for kind in kinds:
        detail = PackedAny(type_url="type.googleapis.com/nope.Nope", value=b"\x08\x01")
        if kind in made:
            detail = PackedAny()
            detail.Pack(made[kind])
        packed.append(detail)
    if packed:
        status = Status(code=code, message=message, details=packed)
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    await context.abort(next(item for item in grpc.StatusCode if item.value[0] == code), message)


async def start(listen: str, library: Library) -> tuple[grpc.aio.Server, int, Any]:
    """Start the server; return it, its port, and its health servicer."""
    stubs = importlib.import_module("edgetest.v1.library_pb2_grpc")
    server = grpc.aio.server()
    stubs.add_LibraryServicer_to_server(library, server)
    health = health_aio.HealthServicer()
    await health.set("", health_pb2.HealthCheckResponse.SERVING)
    await health.set("edgetest.v1.Library", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    port = server.add_insecure_port(listen)
    await server.start()
    return server, port, health


async def main(folder: str, listen: str) -> None:
    sys.path.insert(0, folder)
    server, port, _ = await start(listen, Library())
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
