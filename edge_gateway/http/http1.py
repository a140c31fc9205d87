"""uvicorn's HTTP/1.1, with an end to headers that never end, and refusals that look like all others."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from edge_gateway.errors import EdgeError, invalid_argument, render
from edge_gateway.http.cork import Corked

#: The longest request line and headers, and the longest wait for their end.
MAX_HEAD = 64 * 1024
HEAD_TIMEOUT = 20.0


class EdgeProtocol(HttpToolsProtocol):
    """One connection from a client."""

    _head_size = 0
    _in_head = True
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(Corked(transport, self.loop))  # type: ignore[arg-type]  # a transport in all it does
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        self._head_size += len(data)
        super().data_received(data)
        # Blank lines between two requests are no head yet, and have ended uvicorn's own wait for the second.
        between = self.cycle is not None and self.cycle.response_complete
        if not (self._in_head or between) or self.transport.is_closing():
            return
        if self._in_head and self._head_size > MAX_HEAD:
            self._refuse(EdgeError(3, f"the headers are larger than {MAX_HEAD} bytes", (), 431))
        elif self._head_timer is None:
            self._start_timer()

    def on_message_begin(self) -> None:
        self._in_head = True
        self._head_size = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()
        self.headers = [*self.headers]  # what comes after the body joins this list, not that of the request

    def handle_websocket_upgrade(self) -> None:
        super().handle_websocket_upgrade()
        # The protocol that took over says nothing to what it does not take for a handshake.
        if not getattr(self.transport.get_protocol(), "handshake_initiated", True):
            self._refuse(invalid_argument("this is not a WebSocket handshake"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - ours says it
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
