"""One HTTP request and its response, on the bare ASGI callables."""

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from edge_gateway.errors import EdgeError, payload_too_large
from edge_gateway.http.compression import inflate
from edge_gateway.http.headers import Header, accept_request_id, collect
from edge_gateway.metrics import ServedRequest

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

#: Together they make request ids that are unique across processes.
_PROCESS, _COUNT = os.urandom(8).hex(), itertools.count(1)
_NOSNIFF: Header = (b"x-content-type-options", b"nosniff")
#: Envoy's default.
MAX_HEADERS = 100
#: Seconds before a call is watched: faster calls avoid the cost.
_WATCH_AFTER = 0.2


class Disconnected(Exception):
    """The client disconnected."""


class Request:
    """A request without its body."""

    __slots__ = ("headers", "id", "method", "path", "query", "raw_headers", "scope", "trace")

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.method: str = scope.get("method", "GET")  # a WebSocket's handshake is a GET
        self.path: str = scope["raw_path"].decode("latin-1")
        self.query: bytes = scope["query_string"]
        self.raw_headers: list[Header] = scope["headers"]
        self.headers: dict[bytes, bytes] = {}
        self.id = ""
        #: The traceparent of its calls.
        self.trace = ""

    def index_headers(self) -> None:
        """Index the headers, or raise EdgeError: 400 for one that must not be repeated, 431 for too many."""
        self.id = f"{_PROCESS}{next(_COUNT):016x}"
        if len(self.raw_headers) > MAX_HEADERS:
            raise EdgeError(3, f"there are more than {MAX_HEADERS} headers", (), 431)
        self.headers = collect(self.raw_headers)
        self.id = accept_request_id(self.headers.get(b"x-request-id")) or self.id

    def header(self, name: bytes) -> bytes:
        """Return the value of a header, or empty bytes."""
        return self.headers.get(name, b"")

    def client(self, trusted_hops: int) -> str:
        """Return the client's address: the peer's, or the one that the outermost trusted proxy saw."""
        if trusted_hops:
            seen = self.header(b"x-forwarded-for").decode("latin-1").split(",")
            address = seen[-trusted_hops].strip() if len(seen) >= trusted_hops else ""
            if address and address.isascii() and address.isprintable():
                return address
        peer = self.scope.get("client")
        return peer[0] if peer else ""


class Exchange:
    """An HTTP request and its response."""

    __slots__ = ("_receive", "_send", "common_headers", "request", "served", "started")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.request = Request(scope)
        self.served = ServedRequest()
        self._receive = receive
        self._send = send
        self.started = False
        #: Headers of every response to this request, reply or error.
        self.common_headers: list[Header] = []

    async def body(self, limit: int, seconds: float) -> bytes:
        """Read and inflate the body, waiting `seconds` for each part; raise EdgeError 400, 408, 413 or 415."""
        headers = self.request.headers
        length = headers.get(b"content-length")
        if length is None and b"transfer-encoding" not in headers:
            return b""
        if length is not None and int(length) > limit:
            raise payload_too_large(limit)
        body, more = bytearray(), True  # a bytearray grows without copying
        while more and len(body) <= limit:
            part, more = await self._part(seconds)
            body += part
        if len(body) > limit:
            raise payload_too_large(limit)
        coding = headers.get(b"content-encoding")
        return bytes(body) if coding is None else inflate(bytes(body), coding.decode("latin-1"), limit)

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield the parts of a body of any length as they arrive."""
        more = True
        while more:
            part, more = await self._part(None)
            if part:
                yield part

    async def _part(self, seconds: float | None) -> tuple[bytes, bool]:
        """Return the next part of the body, and whether more follow."""
        try:
            async with asyncio.timeout(seconds):
                message = await self._receive()
        except TimeoutError:
            raise EdgeError(4, "the request body arrives too slowly", (), 408) from None
        if message["type"] != "http.request":
            raise Disconnected
        return message.get("body", b""), message.get("more_body", False)

    async def wait_for_disconnect(self) -> None:
        """Ignore what is left of the body until the client disconnects, and raise Disconnected."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        raise Disconnected

    async def respond(self, status: int, headers: list[Header], body: bytes) -> None:
        """Send a whole response."""
        if status not in (204, 304):
            headers.append((b"content-length", b"%d" % len(body)))
        await self.start_response(status, headers)
        await self._send({"type": "http.response.body", "body": b"" if self.request.method == "HEAD" else body})

    async def start_response(self, status: int, headers: list[Header]) -> None:
        """Send the status and the headers."""
        self.started = True
        self.served.status = status
        headers += self.common_headers
        headers += (_NOSNIFF, (b"x-request-id", self.request.id.encode()))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def send(self, part: bytes) -> None:
        """Send a part of the body."""
        await self._send({"type": "http.response.body", "body": part, "more_body": True})

    async def end(self) -> None:
        """End the body."""
        await self._send({"type": "http.response.body", "body": b""})


class DisconnectWatch:
    """Cancels the current task if the client disconnects before the task is done."""

    __slots__ = ("_exchange", "_task", "_timer", "_watcher", "disconnected")

    def __init__(self, exchange: Exchange, *, after: float = _WATCH_AFTER) -> None:
        self._exchange = exchange
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._watcher: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(after, self._start)
        self.disconnected = False

    def _start(self) -> None:
        self._watcher = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        with contextlib.suppress(Disconnected):
            await self._exchange.wait_for_disconnect()
        self.disconnected = True
        self._task.cancel()

    def stop(self) -> None:
        """Stop watching."""
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
