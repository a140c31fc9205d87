"""One HTTP/2 connection to a back end: its frames, its flow-control windows and its streams."""

import asyncio
from collections import deque
from collections.abc import Callable

from edge_gateway.grpc_client import http2
from edge_gateway.grpc_client.http2 import BlockReader, ProtocolError
from edge_gateway.grpc_client.stream import STREAM_WINDOW, Failure, Stream
from edge_gateway.http.cork import Corked

#: The flow-control window of all streams together; each has a window of its own.
_CONNECTION_WINDOW = 64 * 1024 * 1024

_RESET_CODES = {http2.REFUSED_STREAM: 14, http2.CANCEL: 1, 11: 8, 12: 7}


class Connection(asyncio.Protocol):
    """Reads and writes the frames of one connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop, max_message: int, on_room: Callable[[], None]) -> None:
        """Take a callback, `on_room`, for when waiting calls may find room."""
        self.loop = loop
        self._on_room = on_room
        self.transport: Corked
        self.is_connected = False
        self.writable = asyncio.Event()
        self.writable.set()
        self.send_window = http2.DEFAULT_WINDOW
        self.peer_window = http2.DEFAULT_WINDOW
        self.peer_frame = http2.DEFAULT_FRAME
        self.peer_streams = http2.MAX_WINDOW
        #: Set by GOAWAY or when the stream numbers are used up: accepts no new calls.
        self.is_closing = False
        self.ready: asyncio.Future[None] = loop.create_future()
        self._max_message = max_message
        self._streams: dict[int, Stream] = {}
        self._next = 1
        self._buffer = b""
        self._received = 0
        self._blocks = BlockReader()
        #: An incomplete header block: its stream, its flags and the received part.
        self._partial: tuple[int, int, bytes] | None = None
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def has_room(self) -> bool:
        """Return whether the connection accepts one more call."""
        return self.is_connected and not self.is_closing and len(self._streams) < self.peer_streams

    def call(self, block: bytes, body: bytes | None) -> Stream:
        """Open a stream; send a body with its headers if the windows allow it."""
        stream = Stream(self, self._next, self._max_message)
        self._next += 2
        self.is_closing = self.is_closing or self._next > http2.MAX_WINDOW - 2
        self._streams[stream.id] = stream
        frames = self._headers(stream.id, block)
        if body is not None and len(body) <= min(self.send_window, self.peer_window, self.peer_frame):
            frames += http2.frame(http2.DATA, http2.END_STREAM, stream.id, body)
            self.send_window -= len(body)
            stream.send_window -= len(body)
            stream.is_open = False
        self.transport.write(frames)
        return stream

    def _headers(self, number: int, block: bytes) -> bytes:
        if len(block) <= self.peer_frame:
            return http2.frame(http2.HEADERS, http2.END_HEADERS, number, block)
        parts = [block[at : at + self.peer_frame] for at in range(0, len(block), self.peer_frame)]
        frames = http2.frame(http2.HEADERS, 0, number, parts[0])
        for part in parts[1:-1]:
            frames += http2.frame(http2.CONTINUATION, 0, number, part)
        return frames + http2.frame(http2.CONTINUATION, http2.END_HEADERS, number, parts[-1])

    def forget(self, stream: Stream) -> None:
        """Remove an ended stream; close the connection if it was the last one and it is closing."""
        self._streams.pop(stream.id, None)
        self._on_room()
        self._release()
        if self.is_closing and not self._streams:
            self.transport.close()

    async def room(self) -> None:
        """Wait until a window has grown, the transport is writable again, or a call has ended."""
        future = self.loop.create_future()
        self._waiting.append(future)
        await future

    def _release(self) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the preface, the settings and the first window update."""
        self.transport = Corked(transport, self.loop)  # type: ignore[arg-type]  # uvloop's transport only has the methods
        self.is_connected = True
        ours = (
            (http2.SETTING_HEADER_TABLE_SIZE, 0),
            (http2.SETTING_ENABLE_PUSH, 0),
            (http2.SETTING_WINDOW, STREAM_WINDOW),
            (http2.SETTING_MAX_HEADERS, http2.MAX_HEADER_LIST),
        )
        grow = http2.frame(http2.WINDOW_UPDATE, 0, 0, http2.long(_CONNECTION_WINDOW - http2.DEFAULT_WINDOW))
        self.transport.write(http2.PREFACE + http2.settings(ours) + grow)

    def pause_writing(self) -> None:
        """Stop writers until the transport has drained."""
        self.writable.clear()

    def resume_writing(self) -> None:
        """Resume writers."""
        self.writable.set()
        self._release()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail all calls as UNAVAILABLE."""
        self.is_connected = False
        self.writable.set()
        if not self.ready.done():
            self.ready.set_exception(exc or ConnectionError("the connection was closed"))
        for stream in list(self._streams.values()):
            stream.abort(Failure(14, "the connection to the back end was lost"))
        self._release()

    def close(self) -> None:
        """Close the connection; its calls fail."""
        self.is_closing = True
        if self.is_connected:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Handle received frames; send GOAWAY if they violate HTTP/2."""
        buffer = self._buffer + data if self._buffer else data
        try:
            self._buffer = buffer[self._frames(buffer) :]
        except ProtocolError:
            self._close_with(http2.PROTOCOL_ERROR)

    def _frames(self, buffer: bytes) -> int:
        """Handle the whole frames of a buffer; return the position of their end."""
        at, size = 0, len(buffer)
        while size - at >= 9:
            length, kind, flags, number = http2.head(buffer, at)
            if length > http2.DEFAULT_FRAME:
                raise ProtocolError("a frame is longer than we allow")
            if size - at < 9 + length:
                break
            self._frame(kind, flags, number, buffer[at + 9 : at + 9 + length])
            at += 9 + length
        return at

    def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._partial is not None and kind != http2.CONTINUATION:
            raise ProtocolError("a header block was interrupted")
        if kind == http2.DATA:
            self._on_data(flags, number, payload)
        elif kind == http2.HEADERS:
            self._on_headers(flags, number, http2.unpadded(payload, flags))
        elif kind == http2.CONTINUATION:
            self._on_continuation(flags, number, payload)
        elif kind == http2.WINDOW_UPDATE:
            self._on_window(number, http2.read_long(payload) & 0x7FFFFFFF)
        elif kind == http2.RST_STREAM:
            self._on_reset(number, http2.read_long(payload))
        elif kind == http2.SETTINGS:
            self._on_settings(flags, payload)
        elif kind == http2.PING and not flags & http2.ACK:
            self.transport.write(http2.frame(http2.PING, http2.ACK, 0, payload))
        elif kind == http2.GOAWAY:
            self._on_go_away(http2.read_long(payload) & 0x7FFFFFFF)

    def _on_data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._received += size
        if self._received >= _CONNECTION_WINDOW // 2:
            self.transport.write(http2.frame(http2.WINDOW_UPDATE, 0, 0, http2.long(self._received)))
            self._received = 0
        stream = self._streams.get(number)
        if stream is not None:  # a cancelled call may still receive data
            stream.on_data(http2.unpadded(payload, flags & http2.PADDED), size, end=bool(flags & http2.END_STREAM))

    def _on_headers(self, flags: int, number: int, block: bytes) -> None:
        if not flags & http2.END_HEADERS:
            self._partial = (number, flags, block)
            return
        decoded = self._blocks.read(block)
        stream = self._streams.get(number)
        if stream is not None:
            stream.on_headers(decoded, end=bool(flags & http2.END_STREAM))

    def _on_continuation(self, flags: int, number: int, payload: bytes) -> None:
        if self._partial is None or self._partial[0] != number:
            raise ProtocolError("a CONTINUATION frame without a header block")
        _, first, block = self._partial
        block += payload
        if len(block) > http2.MAX_HEADER_LIST:
            raise ProtocolError("a header block is too large")
        self._partial = (number, first, block)
        if flags & http2.END_HEADERS:
            self._partial = None
            self._on_headers(first | http2.END_HEADERS, number, block)

    def _on_window(self, number: int, grown: int) -> None:
        if number == 0:
            self.send_window += grown
        elif (stream := self._streams.get(number)) is not None:
            stream.send_window += grown
        self._release()

    def _on_reset(self, number: int, error: int) -> None:
        stream = self._streams.get(number)
        if stream is None or stream.ended:
            return
        code = _RESET_CODES.get(error, 13)
        refused = error == http2.REFUSED_STREAM
        stream.failure = Failure(code, "the back end reset the call", unprocessed=refused)
        stream.finish()

    def _on_settings(self, flags: int, payload: bytes) -> None:
        if flags & http2.ACK:
            return
        for name, value in http2.read_settings(payload):
            if name == http2.SETTING_WINDOW:
                for stream in self._streams.values():
                    stream.send_window += value - self.peer_window
                self.peer_window = value
            elif name == http2.SETTING_MAX_FRAME:
                self.peer_frame = value
            elif name == http2.SETTING_MAX_STREAMS:
                self.peer_streams = value
        self.transport.write(http2.frame(http2.SETTINGS, http2.ACK, 0))
        if not self.ready.done():
            self.ready.set_result(None)
        self._on_room()
        self._release()

    def _on_go_away(self, last: int) -> None:
        """Fail the calls beyond `last` as unprocessed, so that they are retried elsewhere."""
        self.is_closing = True
        for stream in [stream for stream in self._streams.values() if stream.id > last]:
            stream.failure = Failure(14, "the back end is closing", unprocessed=True)
            stream.finish()
        if not self._streams:
            self.transport.close()

    def _close_with(self, error: int) -> None:
        self.is_closing = True
        self.transport.write(http2.frame(http2.GOAWAY, 0, 0, http2.long(0) + http2.long(error)))
        for stream in list(self._streams.values()):
            stream.failure = Failure(13, "the back end violates HTTP/2")
            stream.finish()
        self.transport.close()
