"""A client that reads a response as it arrives, and may disconnect at any time."""

import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any, Self, TypeVar

from tests.edge.client import fetch

T = TypeVar("T")
#: The seconds within which a call is cancelled whose client left: one by the contract, and what a busy machine adds.
SOON = 5.0


class Live:
    """One request on its own socket."""

    def __init__(self, port: int, path: str, *headers: str, method: str = "GET", receive_buffer: int = 0) -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: edge", *headers, "", ""]
        self._open(port, "\r\n".join(lines).encode(), receive_buffer)

    @classmethod
    def raw(cls, port: int, data: bytes) -> Self:
        """Connect, and send exactly this."""
        live = cls.__new__(cls)
        live._open(port, data, 0)
        return live

    def _open(self, port: int, data: bytes, receive_buffer: int) -> None:
        self._socket = socket.socket()
        if receive_buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.settimeout(60)
        self._socket.connect(("127.0.0.1", port))
        self._socket.sendall(data)
        self.seen = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    def send(self, raw: bytes) -> None:
        self._socket.sendall(raw)

    def flood(self, piece: bytes, times: int) -> None:
        """Send much, as long as the other side takes it."""
        with contextlib.suppress(ConnectionError):
            for _ in range(times):
                self._socket.sendall(piece)

    def until(self, wanted: bytes) -> bytes:
        """Read on until something has come."""
        while wanted not in self.seen:
            part = self._socket.recv(65536)
            assert part, self.seen
            self.seen += part
        return self.seen

    def rest(self) -> bytes:
        """Read to the end of the connection, however it comes."""
        with contextlib.suppress(ConnectionResetError):
            self._read_on()
        return self.seen

    def _read_on(self) -> None:
        while part := self._socket.recv(65536):
            self.seen += part


def eventually_sync(look: Callable[[], T], wanted: Callable[[T], Any], within: float = 60.0) -> T:
    """Poll until the result satisfies a condition."""
    deadline = time.monotonic() + within
    while True:
        found = look()
        if wanted(found):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


def begun(port: int) -> list[str]:
    """Return the calls that the back end has begun to serve."""
    return list(fetch(port, "GET", "/v1/ended").json["begun"])


def cancelled(port: int) -> list[str]:
    """Return the calls that were cancelled at the back end."""
    return list(fetch(port, "GET", "/v1/ended").json["cancelled"])


def sent(port: int, name: str) -> int:
    """Return how many messages of a stream the back end has sent."""
    return int(fetch(port, "GET", "/v1/ended").json["sent"].get(name, 0))
