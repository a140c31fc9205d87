"""One HTTP request and its answer, on the bare ASGI callables."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from edge_gateway.errors import EdgeError, payload_too_large
from edge_gateway.headers import Header, collect

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

#: A call that is done sooner does not pay for being watched.
_WATCH_AFTER = 0.2


class Disconnected(Exception):
    """The client has gone."""


class Exchange:
    """Reads a request and writes its answer."""

    __slots__ = (
        "_receive",
        "_send",
        "headers",
        "method",
        "path",
        "query",
        "raw_headers",
        "request_id",
        "scope",
        "started",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self.method: str = scope["method"]
        self.path: str = scope["raw_path"].decode("latin-1")
        self.query: bytes = scope["query_string"]
        self.raw_headers: list[Header] = scope["headers"]
        self.headers: dict[bytes, bytes] = {}
        self.request_id = ""
        self.started = False

    def index_headers(self) -> None:
        self.headers = collect(self.raw_headers)

    def header(self, name: bytes) -> bytes:
        return self.headers.get(name, b"")

    async def body(self, limit: int, patience: float) -> bytes:
        """Reads the whole body, or raises EdgeError 408 or 413."""
        length = self.headers.get(b"content-length")
        if length is None and b"transfer-encoding" not in self.headers:
            return b""
        if length is not None and int(length) > limit:
            raise payload_too_large(limit)
        parts = [part async for part in self.parts(limit, patience)]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def parts(self, limit: int, patience: float) -> AsyncIterator[bytes]:
        """Yields the body as it arrives."""
        total = 0
        while True:
            try:
                async with asyncio.timeout(patience):
                    message = await self._receive()
            except TimeoutError:
                raise EdgeError(4, "the request body arrives too slowly", (), 408) from None
            if message["type"] != "http.request":
                raise Disconnected
            part = message.get("body", b"")
            total += len(part)
            if total > limit:
                raise payload_too_large(limit)
            if part:
                yield part
            if not message.get("more_body", False):
                return

    async def gone(self) -> None:
        """Returns when the client has gone; to be used when the body is read or does not matter."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def answer(self, status: int, headers: list[Header], body: bytes) -> None:
        """Sends a whole answer."""
        await self.start(status, [*headers, (b"content-length", b"%d" % len(body))])
        await self._send({"type": "http.response.body", "body": b"" if self.method == "HEAD" else body})

    async def start(self, status: int, headers: list[Header]) -> None:
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def send(self, part: bytes) -> None:
        await self._send({"type": "http.response.body", "body": part, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})


class Watch:
    """Cancels the current task when the client leaves before the task is done."""

    __slots__ = ("_exchange", "_task", "_timer", "_watcher", "gone")

    def __init__(self, exchange: Exchange, *, after: float = _WATCH_AFTER) -> None:
        self._exchange = exchange
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._watcher: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(after, self._start)
        self.gone = False

    def _start(self) -> None:
        self._watcher = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        await self._exchange.gone()
        self.gone = True
        self._task.cancel()

    def stop(self) -> None:
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
