"""A closed loop of HTTP/1.1 requests on kept connections, light enough not to be what is measured."""

import asyncio
import os
import re
from pathlib import Path

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)


class _Client(asyncio.Protocol):
    """Sends the same request again as soon as its answer is whole, until `left` is used up."""

    def __init__(self, request: bytes, left: list[int], done: "asyncio.Future[None]") -> None:
        self._request = request
        self._left = left
        self._done = done
        self._buffer = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        if not head.startswith(b"HTTP/1.1 200"):
            self._done.set_exception(RuntimeError(self._buffer[:500].decode("latin-1")))
            self._transport.close()
            return
        length = _LENGTH.search(head)
        whole = len(body) >= int(length[1]) if length else bool(_CHUNKED.search(head)) and body.endswith(b"0\r\n\r\n")
        if whole:
            self._buffer = b""
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - its signature is given
        if not self._done.done():
            self._done.set_result(None)

    def _next(self) -> None:
        if self._left[0] > 0:
            self._left[0] -= 1
            self._transport.write(self._request)
        else:
            self._transport.close()


async def run(port: int, request: bytes, count: int, concurrency: int) -> float:
    """Send `count` requests; returns how many a second were answered."""
    loop = asyncio.get_running_loop()
    left = [count]
    done = [loop.create_future() for _ in range(concurrency)]
    start = loop.time()
    for future in done:
        await loop.create_connection(lambda future=future: _Client(request, left, future), "127.0.0.1", port)
    await asyncio.gather(*done)
    return count / (loop.time() - start)


def cpu_seconds(pid: int) -> float:
    """What a process, its threads and its children have used of the processor."""
    total = 0.0
    for one in (pid, *_children(pid)):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def resident(pid: int) -> float:
    """Its memory, in MiB."""
    return sum(_resident(one) for one in (pid, *_children(pid)))


def _resident(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *_children(int(child))]
    return found
