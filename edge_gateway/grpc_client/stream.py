"""One gRPC call as a stream of an HTTP/2 connection.

The window grows as messages are read, so a slow reader slows its own stream and no other. Requests wait for the
peer's windows.
"""

import asyncio
from collections import deque
from typing import Protocol

from edge_gateway.grpc_client import http2
from edge_gateway.grpc_client.http2 import Block
from edge_gateway.http.cork import Corked

#: The flow-control window of a stream.
STREAM_WINDOW = 256 * 1024

#: HTTP statuses of proxies in between, as the gRPC specification maps them to codes.
_HTTP_CODES = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}


class Failure(Exception):
    """The error of a call that failed."""

    def __init__(self, code: int, message: str, trailers: Block | None = None, *, unprocessed: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.trailers = trailers
        #: Whether the server certainly did not process the call.
        self.unprocessed = unprocessed


class Carrier(Protocol):
    """The part of a connection that its streams use."""

    loop: asyncio.AbstractEventLoop
    transport: Corked
    is_connected: bool
    #: Set while the transport is writable.
    writable: asyncio.Event
    #: The peer's window for all streams together.
    send_window: int
    #: The peer's window for a new stream, and its largest frame.
    peer_window: int
    peer_frame: int

    async def room(self) -> None:
        """Wait until there may be room to send."""
        ...

    def forget(self, stream: "Stream") -> None:
        """Remove an ended stream."""
        ...


class Stream:
    """One call."""

    __slots__ = (
        "_connection", "_deadline", "_have", "_need", "_parts", "_unread", "_waiter", "ended", "failure", "headers",
        "id", "is_open", "max_message", "messages", "send_window", "trailers",
    )  # fmt: skip

    def __init__(self, connection: Carrier, number: int, max_message: int) -> None:
        self._connection = connection
        self.id = number
        self.max_message = max_message
        self.send_window = connection.peer_window
        self.messages: deque[bytes] = deque()
        self.headers: Block | None = None
        self.trailers: Block | None = None
        self.failure: Failure | None = None
        #: Whether the call has ended, and whether its request is still being sent.
        self.ended = False
        self.is_open = True
        self._parts: list[bytes] = []
        self._have = 0
        self._need = 5
        self._unread = 0
        self._waiter: asyncio.Future[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def expire_in(self, seconds: float) -> None:
        """Fail the call with DEADLINE_EXCEEDED after `seconds`."""
        self._deadline = self._connection.loop.call_later(seconds, self._expire)

    def _expire(self) -> None:
        self.abort(Failure(4, "Deadline Exceeded"))

    async def read(self) -> bytes | None:
        """Return the next message, None at a good end, or raise Failure."""
        while not self.messages:
            if self.ended:
                if self.failure is not None:
                    raise self.failure
                return None
            await self.changed()
        message = self.messages.popleft()
        if not self.messages:
            self._grow_window()
        return message

    async def changed(self) -> None:
        """Wait until a frame for this stream is received."""
        self._waiter = self._connection.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def wake(self) -> None:
        """Wake the reader."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def write(self, data: bytes, *, end: bool) -> bool:
        """Send bytes as the windows allow; return false if the call ended before all were sent."""
        connection = self._connection
        at = 0
        while at < len(data) or end:
            room = min(self.send_window, connection.send_window, connection.peer_frame)
            if not self.is_open or self.ended:
                return False
            if (room <= 0 and at < len(data)) or not connection.writable.is_set():
                await connection.room()
                continue
            part = data[at : at + room]
            at += len(part)
            last = end and at == len(data)
            self.send_window -= len(part)
            connection.send_window -= len(part)
            connection.transport.write(http2.frame(http2.DATA, http2.END_STREAM if last else 0, self.id, part))
            if last:
                self.is_open = False
                break
        return True

    def on_headers(self, block: Block, *, end: bool) -> None:
        """Handle a header block: initial metadata or trailers."""
        if end:
            self.trailers = block
            if self.headers is None:
                self.headers = block
            self._conclude(block)
        elif self.headers is None:
            self.headers = block
            if block.http_status != 200:
                code = _HTTP_CODES.get(block.http_status or 0, 2)
                self.abort(Failure(code, f"the back end answered with HTTP status {block.http_status}", block))
        self.wake()

    def _conclude(self, block: Block) -> None:
        status = block.grpc_status
        if status is None:
            code = _HTTP_CODES.get(block.http_status or 200, 2)
            self.failure = Failure(code, "the back end ended a call without a status", block)
        elif status != 0:
            self.failure = Failure(status, block.message, block)
        elif self._have:
            self.failure = Failure(13, "the back end ended a call inside a message")
        self.finish()

    def on_data(self, payload: bytes, size: int, *, end: bool) -> None:
        """Handle a DATA payload; `size` includes its padding."""
        self._unread += size
        if self._unread > STREAM_WINDOW:
            self.abort(Failure(13, "the back end sends more than its window allows"))
            return
        self._parts.append(payload)
        self._have += len(payload)
        if self._have >= self._need:
            self._cut()
        if end:
            self._conclude(self.headers or Block(200, None, "", ()))
        elif not self.messages:
            self._grow_window()  # the reader waits for the rest
        self.wake()

    def _cut(self) -> None:
        """Move the whole messages of the received data to `messages`."""
        buffer, at = b"".join(self._parts) if len(self._parts) > 1 else self._parts[0], 0
        self._need = 5
        while len(buffer) - at >= 5:
            length = http2.read_long(buffer, at + 1)
            if buffer[at]:
                self.abort(Failure(13, "the back end sent a compressed message"))
                return
            if length > self.max_message:
                text = f"CLIENT: Received message larger than max ({length} vs. {self.max_message})"
                self.abort(Failure(8, text))
                return
            if len(buffer) - at < 5 + length:
                self._need = 5 + length
                break
            self.messages.append(buffer[at + 5 : at + 5 + length])
            at += 5 + length
        self._parts = [buffer[at:]] if at < len(buffer) else []
        self._have = len(buffer) - at

    def _grow_window(self) -> None:
        """Grow the window by what has been read, in steps that are worth a frame."""
        if self._unread >= STREAM_WINDOW // 2 and not self.ended:
            update = http2.frame(http2.WINDOW_UPDATE, 0, self.id, http2.long(self._unread))
            self._connection.transport.write(update)
            self._unread = 0

    def abort(self, failure: Failure) -> None:
        """Fail the call and reset its stream, unless it has ended."""
        if not self.ended:
            self.failure = failure
            if self._connection.is_connected:
                reset = http2.frame(http2.RST_STREAM, 0, self.id, http2.long(http2.CANCEL))
                self._connection.transport.write(reset)
            self.finish()

    def finish(self) -> None:
        """End the call and release its stream."""
        if self.is_open and self.failure is None and self._connection.is_connected:
            # The server has responded without reading the rest of the request.
            reset = http2.frame(http2.RST_STREAM, 0, self.id, http2.long(http2.NO_ERROR))
            self._connection.transport.write(reset)
        self.ended = True
        self.is_open = False
        self._connection.forget(self)
        if self._deadline is not None:
            self._deadline.cancel()
        self.wake()
