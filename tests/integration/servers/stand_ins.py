"""Servers behind the ingress in its tests: they return the request, and act as its headers say."""

import asyncio
import json
from collections import Counter
from contextlib import asynccontextmanager, nullcontext

import grpc
import grpc.aio
import uvicorn

SERVING = b"\x08\x01"


class GrpcServer(grpc.GenericRpcHandler):
    """Answers any method with the call's path and metadata, as JSON.

    Metadata decide: `do: unavailable` refuses, `do: hang` waits, `do: stream` sends several messages.
    """

    def __init__(self):
        #: The calls that began, by path, and those whose request came.
        self.opened = Counter()
        self.calls = Counter()
        self._running = asyncio.Event()
        self._running.set()

    def freeze(self):
        """Answer nothing, health checks included, until `thaw`."""
        self._running.clear()

    def thaw(self):
        self._running.set()

    def service(self, details):
        if details.method == "/grpc.health.v1.Health/Check":
            return grpc.unary_unary_rpc_method_handler(self._health)
        metadata = dict(details.invocation_metadata)
        path = details.method
        self.opened[path] += 1

        async def answer(request, context):
            self.calls[path] += 1
            await self._running.wait()
            do = metadata.get("do")
            if do == "unavailable":
                await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
            if do == "hang":
                await asyncio.Event().wait()
            return json.dumps({"path": path, "metadata": metadata, "size": len(request)}).encode()

        async def stream(request, context):
            for _ in range(3):
                yield await answer(request, context)

        if metadata.get("do") == "stream":
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(answer)

    async def _health(self, _request, _context):
        await self._running.wait()
        return SERVING

    @asynccontextmanager
    async def listening(self, port=0):
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers([self])
        bound = server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        try:
            yield f"127.0.0.1:{bound}"
        finally:
            await server.stop(None)


async def _http_app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        return
    if scope["path"] == "/events":
        await send(_head(b"text/event-stream"))
        await send({"type": "http.response.body", "body": b"data: first\n\n", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    size = 0
    while (message := await receive())["type"] == "http.request":
        size += len(message["body"])
        if not message["more_body"]:
            break
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    raw = scope["raw_path"].decode()
    body = {"method": scope["method"], "raw_path": raw, "headers": headers, "size": size}
    await send(_head(b"application/json"))
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})


def _head(content_type):
    return {"type": "http.response.start", "status": 200, "headers": [(b"content-type", content_type)]}


@asynccontextmanager
async def http_server():
    """An HTTP/1.1 server that tells what it was asked, streams at /events, and echoes on WebSockets."""
    config = uvicorn.Config(
        _http_app, port=0, loop="none", lifespan="off", log_config=None, ws="wsproto", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    server.capture_signals = nullcontext  # signals are pytest's
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(60):
        while not server.started:
            await asyncio.sleep(0.01)
    try:
        yield f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
