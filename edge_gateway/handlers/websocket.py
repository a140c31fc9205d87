"""Streams over WebSocket: one JSON message a text frame; `{"result": ...}` and `{"error": ...}` come back.

An empty text frame from the client ends its messages. A browser, which cannot set headers, may offer its token as the
subprotocol `bearer.<token>` beside `edge.v1`.
"""

import logging
from typing import Any

from protobuf import Message

from edge_gateway.errors import EdgeError, internal, invalid_argument, render
from edge_gateway.grpc_client.upstreams import GrpcCall
from edge_gateway.handlers.pipeline import EdgeCall, Pipeline, send_one
from edge_gateway.handlers.relay import Event, Relay
from edge_gateway.http.exchange import Disconnected, Receive, Request, Scope, Send
from edge_gateway.json.stream_framing import Ndjson
from edge_gateway.metrics import ServedRequest
from edge_gateway.policies.cors import Cors
from edge_gateway.settings import Settings

log = logging.getLogger("edge_gateway")

SUBPROTOCOL = "edge.v1"
_BEARER = "bearer."
#: The status of a stream that ended well.
_SWITCHED = 101
#: Close codes for the private use of applications; the gRPC code is added.
_CLOSE = 4000


class WebSocketHandler:
    """Serves streaming methods to WebSocket clients, at the paths of their rules."""

    def __init__(self, pipeline: Pipeline, cors: Cors, settings: Settings) -> None:
        self._pipeline = pipeline
        self._cors = cors
        self._max_frame = settings.max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one WebSocket connection."""
        request = Request(scope)
        socket = _Socket(scope, receive, send)
        served = ServedRequest()
        served.is_stream, served.status = True, _SWITCHED
        try:
            request.index_headers()
            self._check_origin(request)
            call = self._pipeline.route_socket(request)
            served.method = call.rule.rpc.path
            await self._serve(socket, call)
        except EdgeError as error:
            served.status = render(error).status
            await socket.reject(request, error)
        except Disconnected:
            pass
        except Exception:
            log.exception("socket %s failed", request.id)
            failure = internal(f"internal error {request.id}")
            served.status = render(failure).status
            await socket.reject(request, failure)
        finally:
            served.record()

    def _check_origin(self, request: Request) -> None:
        """Reject a foreign origin: browsers send no preflight before they open a socket, so the server must check."""
        origin = request.headers.get(b"origin")
        if origin is None or self._cors.allows(origin) or origin.partition(b"://")[2] == request.header(b"host"):
            return
        raise EdgeError(7, "sockets cannot be opened from this origin")

    async def _serve(self, socket: "_Socket", call: EdgeCall) -> None:
        socket.read_token(call.request)
        self._pipeline.bind(call)
        grpc_call = await self._pipeline.open(call)
        try:
            await socket.accept(call.request)
        except BaseException:
            grpc_call.cancel()
            raise
        if call.rule.rpc.client_streaming or call.rule.has_body:
            inbound = self._upload(socket, call, grpc_call)
        else:
            inbound = _send(socket, grpc_call, call.message)
        async with self._pipeline.relay(call, grpc_call, inbound) as relay:
            await self._write(socket, call, relay)

    async def _write(self, socket: "_Socket", call: EdgeCall, relay: Relay) -> None:
        framing = Ndjson()
        while (item := await relay.next(None)) is not Event.END:
            assert isinstance(item, bytes)
            await socket.send(framing.message(self._pipeline.render(call, item).body, ""))
        await socket.close(1000, "")

    async def _upload(self, socket: "_Socket", call: EdgeCall, grpc_call: GrpcCall) -> None:
        """Send the client's frames until an empty one, or the only one of a unary request."""
        while frame := await socket.receive():
            if len(frame) > self._max_frame:
                raise EdgeError(8, f"a frame is larger than {self._max_frame} bytes", (), 413)
            written = await grpc_call.write(self._pipeline.bind_part(call, frame))
            if not written or not call.rule.rpc.client_streaming:
                break
        await grpc_call.done_writing()
        await socket.wait_for_disconnect()


async def _send(socket: "_Socket", grpc_call: GrpcCall, message: Message) -> None:
    await send_one(grpc_call, message)
    await socket.wait_for_disconnect()


class _Socket:
    """The ASGI side of one connection."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._accepted = False

    def read_token(self, request: Request) -> None:
        """Read the token from the subprotocols as if it were a header."""
        for protocol in self._scope.get("subprotocols", ()):
            if protocol.startswith(_BEARER) and b"authorization" not in request.headers:
                token = b"Bearer " + protocol.removeprefix(_BEARER).encode()
                request.headers[b"authorization"] = token
                request.raw_headers = [*request.raw_headers, (b"authorization", token)]

    async def accept(self, request: Request) -> None:
        await self._receive()  # websocket.connect
        offered = self._scope.get("subprotocols", ())
        message: dict[str, Any] = {"type": "websocket.accept", "headers": [(b"x-request-id", request.id.encode())]}
        if SUBPROTOCOL in offered:
            message["subprotocol"] = SUBPROTOCOL
        await self._send(message)
        self._accepted = True

    async def receive(self) -> bytes:
        """Return the next frame; raise Disconnected, or EdgeError 400 for a binary frame."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            raise Disconnected
        text = message.get("text")
        if text is None:
            raise invalid_argument("a frame is binary; JSON goes in text frames")
        return bytes(text.encode())

    async def wait_for_disconnect(self) -> None:
        """Ignore further frames until the client disconnects, and raise Disconnected."""
        while (await self._receive())["type"] != "websocket.disconnect":
            pass
        raise Disconnected

    async def send(self, part: bytes) -> None:
        await self._send({"type": "websocket.send", "text": part.decode().rstrip("\n")})

    async def close(self, code: int, reason: str) -> None:
        await self._send({"type": "websocket.close", "code": code, "reason": reason})

    async def reject(self, request: Request, error: EdgeError) -> None:
        """Send an error: before the handshake as an HTTP response, after it as a last frame."""
        if self._accepted:
            await self.send(Ndjson().error(error.as_json()))
            await self.close(_CLOSE + error.code, error.reason[:100])
            return
        await self._receive()
        rendered = render(error, request.header(b"accept"))
        headers = [*rendered.headers, (b"content-length", b"%d" % len(rendered.body))]
        await self._send({"type": "websocket.http.response.start", "status": rendered.status, "headers": headers})
        await self._send({"type": "websocket.http.response.body", "body": rendered.body})
