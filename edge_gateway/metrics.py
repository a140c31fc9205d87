"""Metrics of the edge for Prometheus, shaped as those of services: requests by method and status, streams, event loop.

The edge has no part of the chassis: it runs in front of other gRPC services as well.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

disable_created_metrics()  # type: ignore[no-untyped-call]

_REGISTRY = CollectorRegistry()
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 1.0, 2.5, 5.0, 10.0)
_SERVED = Histogram(
    "http_server_duration_seconds", "Requests served.", ("method", "status"), registry=_REGISTRY, buckets=_SECONDS
)
_STREAMS = Counter("http_server_streams", "Streams that ended.", ("method", "status"), registry=_REGISTRY)
STREAMS_OPEN = Gauge("http_server_streams_open", "Streams that are open.", registry=_REGISTRY)
_LOOP_LAG = Histogram("event_loop_lag_seconds", "Delay of a due timer.", registry=_REGISTRY, buckets=(0.001, *_SECONDS))
_LOOP_SECONDS = 0.5
_REQUEST_SECONDS = 5.0
_REQUEST_BYTES = 8_192
#: The status of a request whose client has disconnected.
DISCONNECTED = 499


class ServedRequest:
    """One request until it is recorded."""

    __slots__ = ("_began", "is_stream", "method", "status")

    def __init__(self) -> None:
        self._began = time.perf_counter()
        #: The gRPC method, or the path of a built-in route; empty for a path without a route.
        self.method = ""
        self.status = DISCONNECTED
        #: How long a stream lasts says how long its client listened, and is left out.
        self.is_stream = False

    def record(self) -> None:
        """Record that the request has ended."""
        if self.is_stream:
            _STREAMS.labels(self.method, self.status).inc()
        else:
            _SERVED.labels(self.method, self.status).observe(time.perf_counter() - self._began)


@asynccontextmanager
async def serving_metrics(listen: str) -> AsyncIterator[None]:
    """Answer GET /metrics at `listen`, host:port, and measure the lag of the event loop. Raises OSError."""
    host, _, port = listen.rpartition(":")
    server = await asyncio.start_server(_serve_scrape, host.strip("[]"), int(port), limit=_REQUEST_BYTES)
    lag = asyncio.create_task(_measure_loop())
    try:
        async with server:
            yield
    finally:
        lag.cancel()


async def _serve_scrape(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        async with asyncio.timeout(_REQUEST_SECONDS):
            request = await reader.readuntil(b"\r\n\r\n")
            found = request.startswith((b"GET /metrics ", b"GET /metrics?"))
            status, body = (b"200 OK", generate_latest(_REGISTRY)) if found else (b"404 Not Found", b"")
            head = b"HTTP/1.1 %b\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n" % status
            writer.write(head + b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body)
            await writer.drain()
    except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass  # the client's own fault, or it is gone
    finally:
        with suppress(OSError):
            writer.close()


async def _measure_loop() -> None:
    clock = asyncio.get_running_loop().time
    while True:
        due = clock() + _LOOP_SECONDS
        await asyncio.sleep(_LOOP_SECONDS)
        _LOOP_LAG.observe(max(clock() - due, 0.0))
