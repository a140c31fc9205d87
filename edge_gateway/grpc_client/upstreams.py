"""The upstreams: the target of each method, its connections, and calls with serialized messages."""

import asyncio
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edge_gateway.grpc_client import http2
from edge_gateway.grpc_client.connection import Connection
from edge_gateway.grpc_client.connection_pool import Pool, parse_target
from edge_gateway.grpc_client.stream import Failure, Stream

RawMetadata = Sequence[tuple[str, str | bytes]]

_NOTHING: RawMetadata = ()


class UpstreamError(Exception):
    """A call ended with a status other than OK."""

    def __init__(self, code: int, message: str, initial: RawMetadata, trailing: RawMetadata) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.initial = initial
        self.trailing = trailing


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply of a unary call."""

    message: bytes
    initial: RawMetadata
    trailing: RawMetadata


class UnknownServiceError(LookupError):
    """No upstream is named for a service."""


class Upstreams:
    """Calls methods by their paths, each at the target of its service."""

    def __init__(self, targets: dict[str, str], *, max_message: int, tls: ssl.SSLContext | None = None) -> None:
        """Take the TLS context of grpcs:// targets; by default, trust the system's certificate authorities."""
        self._targets = targets
        for target in targets.values():
            parse_target(target)
        self._max_message = max_message
        self._tls = tls
        self._pools: dict[str, Pool] = {}
        self._by_method: dict[str, tuple[Pool, bytes]] = {}

    def target(self, service: str) -> str:
        """Return the target of a service: by its name, by the longest matching `pkg.*`, or by `*`."""
        if service in self._targets:
            return self._targets[service]
        fitting = (name for name in self._targets if name[-1:] == "*" and service.startswith(name[:-1]))
        best = max(fitting, key=len, default=None)
        if best is None:
            raise UnknownServiceError(service)
        return self._targets[best]

    async def unary(self, method: str, request: bytes, metadata: RawMetadata, deadline: float | None) -> Reply:
        """Make a unary call; raise UpstreamError."""
        pool, head = self._method(method)
        return await _unary(pool, head, request, metadata, deadline)

    async def unary_at(
        self, target: str, method: str, request: bytes, metadata: RawMetadata, deadline: float | None
    ) -> Reply:
        """Make a unary call at a given target; raise UpstreamError."""
        pool = self._pool(target)
        return await _unary(pool, pool.head(method), request, metadata, deadline)

    async def stream(self, method: str, metadata: RawMetadata, deadline: float | None) -> "GrpcCall":
        """Open a streaming call; raise UpstreamError."""
        pool, head = self._method(method)
        try:
            connection = pool.idle() or await pool.connect(deadline)
        except Failure as failure:
            raise _error(failure, None) from None
        return GrpcCall(_open(connection, head, metadata, deadline, None))

    async def close(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            pool.close()

    def _method(self, method: str) -> tuple[Pool, bytes]:
        found = self._by_method.get(method)
        if found is None:
            pool = self._pool(self.target(method[1:].partition("/")[0]))
            found = self._by_method[method] = pool, pool.head(method)
        return found

    def _pool(self, target: str) -> Pool:
        pool = self._pools.get(target)
        if pool is None:
            pool = self._pools[target] = Pool(target, self._max_message, self._tls)
        return pool


async def _unary(pool: Pool, head: bytes, request: bytes, metadata: RawMetadata, deadline: float | None) -> Reply:
    body = b"\0" + http2.long(len(request)) + request
    for attempt in (1, 2):
        stream: Stream | None = None
        try:
            connection = pool.idle() or await pool.connect(deadline)
            stream = _open(connection, head, metadata, deadline, body)
            if stream.is_open:
                await stream.write(body, end=True)
            return await _reply(stream)
        except Failure as failure:
            if not failure.unprocessed or attempt == 2:
                raise _error(failure, stream) from None
        except asyncio.CancelledError:
            if stream is not None:
                stream.abort(Failure(1, "cancelled"))
            raise
    raise AssertionError("unreachable")


async def _reply(stream: Stream) -> Reply:
    while not stream.ended:
        await stream.changed()
    if stream.failure is not None:
        raise stream.failure
    if len(stream.messages) != 1:
        raise Failure(13, f"the back end sent {len(stream.messages)} replies to one request")
    initial, trailing = stream.headers, stream.trailers
    return Reply(
        stream.messages[0],
        initial.metadata if initial is not None else _NOTHING,
        trailing.metadata if trailing is not None else _NOTHING,
    )


def _open(
    connection: Connection, head: bytes, metadata: RawMetadata, deadline: float | None, body: bytes | None
) -> Stream:
    block = head
    if deadline is not None:
        block += http2.literal("grpc-timeout") + http2.value(_timeout(deadline))
    for name, text in metadata:
        block += http2.literal(name) + http2.value(text)
    stream = connection.call(block, body)
    if deadline is not None:
        stream.expire_in(deadline)
    return stream


def _timeout(seconds: float) -> str:
    """Return a grpc-timeout, which has at most eight digits and a unit."""
    milliseconds = max(1, round(seconds * 1000))
    return f"{milliseconds}m" if milliseconds < 100_000_000 else f"{min(round(seconds), 99_999_999)}S"


class GrpcCall:
    """A running streaming call, written by one task and read by another."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def write(self, message: bytes) -> bool:
        """Send a message, waiting for flow control; return false if the call has ended, whose status `read` raises."""
        return await self._stream.write(b"\0" + http2.long(len(message)) + message, end=False)

    async def done_writing(self) -> None:
        """Half-close the call: no more requests follow."""
        await self._stream.write(b"", end=True)

    async def read(self) -> bytes | None:
        """Return the next message, None at a good end, or raise UpstreamError."""
        try:
            return await self._stream.read()
        except Failure as failure:
            raise _error(failure, self._stream) from None

    @property
    def initial(self) -> RawMetadata:
        """The initial metadata; empty until it is received."""
        return self._stream.headers.metadata if self._stream.headers is not None else _NOTHING

    @property
    def trailing(self) -> RawMetadata:
        """The trailing metadata; empty until it is received."""
        return self._stream.trailers.metadata if self._stream.trailers is not None else _NOTHING

    def cancel(self) -> None:
        """Cancel the call, unless it has ended."""
        self._stream.abort(Failure(1, "cancelled"))


def _error(failure: Failure, stream: Stream | None) -> UpstreamError:
    initial = stream.headers if stream is not None else None
    trailers = failure.trailers
    return UpstreamError(
        failure.code,
        failure.message,
        initial.metadata if initial is not None and initial is not trailers else _NOTHING,
        trailers.metadata if trailers is not None else _NOTHING,
    )


def parse_upstreams(texts: Iterable[str]) -> dict[str, str]:
    """Parse `pkg.Service=host:port` and `*=host:port`, several in one text if joined by commas; raise ValueError."""
    targets: dict[str, str] = {}
    for text in texts:
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, equals, target = part.partition("=")
            if not equals or not name or not target:
                raise ValueError(f"upstream {part!r} is not of the form pkg.Service=host:port or *=host:port")
            if targets.setdefault(name, target) != target:
                raise ValueError(f"two upstreams are named for {name!r}")
    return targets
