"""Streams over WebSocket: one JSON message a text frame; `{"result": ...}` and `{"error": ...}` come back.

An empty text frame from the client says that it has nothing more to send. A browser, which cannot set headers,
may offer its token as the subprotocol `bearer.<token>` beside `edge.v1`.
"""

import logging
from typing import Any

from edge_gateway.errors import EdgeError, internal, invalid_argument, not_found, render
from edge_gateway.grpc_client.invoker import to_binary
from edge_gateway.grpc_client.upstreams import Call, UpstreamError
from edge_gateway.handlers.context import Parts
from edge_gateway.handlers.relay import Event, Relay
from edge_gateway.http.exchange import Disconnected, Receive, Request, Scope, Send
from edge_gateway.json.stream_framing import Ndjson
from edge_gateway.json.transcoder import View
from edge_gateway.routing.router import Match
from edge_gateway.routing.rules import Rule

log = logging.getLogger("edge_gateway")

SUBPROTOCOL = "edge.v1"
_BEARER = "bearer."
#: Close codes for the private use of applications; the gRPC code is added.
_CLOSE = 4000


class WebSockets:
    """Serves streaming methods to WebSocket clients, at the paths of their rules."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        socket = _Socket(scope, receive, send)
        try:
            request.index()
            self._check_origin(request)
            match = self._match(request)
            await self._serve(socket, request, match)
        except EdgeError as error:
            await socket.refuse(request, error)
        except Disconnected:
            pass
        except Exception:
            log.exception("socket %s failed", request.id)
            await socket.refuse(request, internal(f"internal error {request.id}"))

    def _match(self, request: Request) -> Match[Rule]:
        """A handshake is always a GET, so the rule is the one at this path that streams, whatever its method."""
        for method in self._parts.router.methods(request.path):
            match = self._parts.router.match(method, request.path)
            if not match.target.rpc.is_unary and not match.target.raw_response:
                return match
        raise not_found(request.path)

    def _check_origin(self, request: Request) -> None:
        """Browsers do not ask before they open a socket to another origin, so its server has to."""
        origin = request.headers.get(b"origin")
        if origin is None or self._parts.cors.allows(origin) or origin.partition(b"://")[2] == request.header(b"host"):
            return
        raise EdgeError(7, "sockets cannot be opened from this origin")

    async def _serve(self, socket: "_Socket", request: Request, match: Match[Rule]) -> None:
        rule = match.target
        socket.read_token(request)
        await self._parts.limiter.check(request, rule)
        message, system = self._parts.transcoder.request(match, b"", b"", request.query)
        view = self._parts.transcoder.view(rule, system, b"")
        call = await self._parts.caller.open(request, rule)
        try:
            await socket.accept(request)
        except BaseException:
            call.cancel()
            raise
        awaits_frames = rule.rpc.client_streaming or rule.has_body
        up = self._upload(socket, request, match, call) if awaits_frames else _send(socket, call, to_binary(message))
        relay = self._parts.relays.open(call, up)
        try:
            await self._relay(socket, rule, view, relay)
        except UpstreamError as failure:
            raise self._parts.caller.failure(request, rule, failure) from None
        finally:
            await relay.close()

    async def _relay(self, socket: "_Socket", rule: Rule, view: View, relay: Relay) -> None:
        framing = Ndjson()
        while (item := await relay.next(None)) is not Event.END:
            assert isinstance(item, bytes)
            written = self._parts.transcoder.reply(rule, self._parts.transcoder.parse(rule, item), view)[1]
            await socket.send(framing.message(written, ""))
        await socket.close(1000, "")

    async def _upload(self, socket: "_Socket", request: Request, match: Match[Rule], call: Call) -> None:
        rule = match.target
        while frame := await socket.receive():
            if len(frame) > self._parts.settings.max_body:
                raise EdgeError(8, f"a frame is larger than {self._parts.settings.max_body} bytes", (), 413)
            message, _ = self._parts.transcoder.request(match, frame, b"", request.query, of_stream=True)
            if not await call.write(to_binary(message)) or not rule.rpc.client_streaming:
                break
        await call.done_writing()
        await socket.gone()


async def _send(socket: "_Socket", call: Call, message: bytes) -> None:
    await call.write(message)
    await call.done_writing()
    await socket.gone()


class _Socket:
    """The ASGI side of one connection."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._accepted = False

    def read_token(self, request: Request) -> None:
        """Takes the token out of the subprotocols, as if it were a header."""
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
        """Returns the next frame, or raises Disconnected."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            raise Disconnected
        text = message.get("text")
        if text is None:
            raise invalid_argument("a frame is binary; JSON goes in text frames")
        return bytes(text.encode())

    async def gone(self) -> None:
        """Waits for the client to leave, and raises Disconnected; frames that nobody asked for are ignored."""
        while (await self._receive())["type"] != "websocket.disconnect":
            pass
        raise Disconnected

    async def send(self, part: bytes) -> None:
        await self._send({"type": "websocket.send", "text": part.decode().rstrip("\n")})

    async def close(self, code: int, reason: str) -> None:
        await self._send({"type": "websocket.close", "code": code, "reason": reason})

    async def refuse(self, request: Request, error: EdgeError) -> None:
        """Says what went wrong: before the handshake as an HTTP answer, after it as a last frame."""
        if self._accepted:
            await self.send(Ndjson().error(error.as_json()))
            await self.close(_CLOSE + error.code, error.reason[:100])
            return
        await self._receive()
        rendered = render(error, request.header(b"accept"))
        headers = [*rendered.headers, (b"content-length", b"%d" % len(rendered.body))]
        await self._send({"type": "websocket.http.response.start", "status": rendered.status, "headers": headers})
        await self._send({"type": "websocket.http.response.body", "body": rendered.body})
