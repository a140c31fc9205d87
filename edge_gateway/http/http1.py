"""uvicorn's HTTP/1.1, with limits of size and time for headers, and error responses in the edge's own format."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from edge_gateway.errors import EdgeError, invalid_argument, render
from edge_gateway.http.cork import Corked

#: Bytes of a request line with its headers, and seconds until they are complete.
MAX_HEAD = 64 * 1024
HEAD_TIMEOUT = 20.0


class EdgeProtocol(HttpToolsProtocol):
    """One connection from a client."""

    _head_size = 0
    _in_head = True
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Cork the transport, and start the timeout of the first request's headers."""
        super().connection_made(Corked(transport, self.loop))  # type: ignore[arg-type]  # it has all methods of a transport
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        """Parse data; enforce the limits of size and time for headers."""
        self._head_size += len(data)
        super().data_received(data)
        # Blank lines between two requests end uvicorn's own timeout, though no headers have begun.
        between = self.cycle is not None and self.cycle.response_complete
        if not (self._in_head or between) or self.transport.is_closing():
            return
        if self._in_head and self._head_size > MAX_HEAD:
            self._refuse(EdgeError(3, f"the headers are larger than {MAX_HEAD} bytes", (), 431))
        elif self._head_timer is None:
            self._start_timer()

    def on_message_begin(self) -> None:
        """Begin to count the bytes of a request's headers."""
        self._in_head = True
        self._head_size = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Stop the timeout of the headers."""
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()
        self.headers = [*self.headers]  # trailers are appended to this copy, not to the request's list

    def handle_websocket_upgrade(self) -> None:
        """Reject what is not a valid handshake."""
        super().handle_websocket_upgrade()
        # The WebSocket protocol sends no response to an invalid handshake.
        if not getattr(self.transport.get_protocol(), "handshake_initiated", True):
            self._refuse(invalid_argument("this is not a WebSocket handshake"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timeout."""
        self._stop_timer()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - the message is the edge's own
        """Reject what is not HTTP/1.1, with an error in the edge's format."""
        self._refuse(invalid_argument("this is not a request of HTTP/1.1"))

    def _start_timer(self) -> None:
        late = EdgeError(4, "the headers arrive too slowly", (), 408)
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT, self._refuse, late)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, error: EdgeError) -> None:
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            rendered = render(error)
            lines = [b"%s: %s\r\n" % header for header in rendered.headers]
            status = b"HTTP/1.1 %d \r\n" % rendered.status
            length = b"content-length: %d\r\nconnection: close\r\n\r\n" % len(rendered.body)
            self.transport.write(b"".join([status, *lines, length, rendered.body]))
        self.transport.close()
