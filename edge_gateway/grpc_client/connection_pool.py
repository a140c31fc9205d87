"""The connections to one target: opened on demand, a further one only when all are full."""

import asyncio
import ssl
from dataclasses import dataclass

from edge_gateway.grpc_client import http2
from edge_gateway.grpc_client.connection import Connection
from edge_gateway.grpc_client.stream import Failure
from edge_gateway.http.socket_options import keepalive

_CONNECT_TIMEOUT = 5.0
#: Seconds without a further attempt after connecting failed: at first, and at most.
_PAUSE, _LONGEST_PAUSE = 0.1, 1.0
_MOST = 32


@dataclass(frozen=True, slots=True)
class Target:
    """The address of a back end: `host:port` or `unix:/path`, with `grpc://` or `grpcs://` in front if wanted."""

    host: str
    port: int
    path: str
    secure: bool

    @property
    def authority(self) -> str:
        """Return the `:authority` of calls."""
        return "localhost" if self.path else f"{self.host}:{self.port}"


def parse_target(text: str) -> Target:
    """Parse a target, or raise ValueError."""
    secure = text.startswith(("grpcs://", "https://"))
    rest = text.partition("://")[2] if "://" in text and not text.startswith("unix:") else text
    rest = rest.removeprefix("dns:///").removeprefix("dns:").removeprefix("ipv4:")
    if rest.startswith("unix:"):
        return Target("", 0, rest.removeprefix("unix:").replace("///", "/", 1), secure)
    host, _, port = rest.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"{text!r} is not of the form host:port")
    return Target(host.strip("[]"), int(port), "", secure)


class Pool:
    """Lends connections with room for one more call."""

    def __init__(self, target: str, max_message: int, tls: ssl.SSLContext | None) -> None:
        self._target = parse_target(target)
        self._max_message = max_message
        self._tls = (tls or client_tls()) if self._target.secure else None
        self._connections: list[Connection] = []
        self._opening: asyncio.Task[None] | None = None
        self._pause = 0.0
        self._closed_until = 0.0
        self._waiting: list[asyncio.Future[None]] = []

    def head(self, method: str) -> bytes:
        """Return the encoded header fields that all calls of a method share."""
        return http2.request_head(method, self._target.authority, secure=self._target.secure)

    def idle(self) -> Connection | None:
        """Return a connection with room, or None."""
        for connection in self._connections:
            if connection.has_room:
                return connection
        return None

    async def connect(self, deadline: float | None) -> Connection:
        """Return a connection with room, opening one if needed; raise Failure after `deadline` seconds at most."""
        try:
            async with asyncio.timeout(deadline):
                return await self._connect()
        except TimeoutError:
            raise Failure(4, "Deadline Exceeded") from None

    async def _connect(self) -> Connection:
        while True:
            self._connections = [connection for connection in self._connections if connection.is_connected]
            connection = self.idle()
            if connection is not None:
                return connection
            usable = [connection for connection in self._connections if not connection.is_closing]
            if len(usable) >= _MOST:
                await self._room()
                continue
            if self._opening is None:
                self._opening = asyncio.ensure_future(self._open())
                self._opening.add_done_callback(self._opened)
            await asyncio.shield(self._opening)

    async def _room(self) -> None:
        """Wait until a call has ended on any of the connections."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future

    def _release(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening = None
        if not task.cancelled():
            task.exception()  # marks the exception as retrieved even if no caller waits

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() < self._closed_until:
            raise Failure(14, "connecting failed a moment ago", unprocessed=True)
        connection = Connection(loop, self._max_message, self._release)
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                await self._dial(loop, connection)
                await connection.ready
        except (OSError, TimeoutError) as error:
            self._pause = min(max(self._pause * 2, _PAUSE), _LONGEST_PAUSE)
            self._closed_until = loop.time() + self._pause
            connection.close()
            raise Failure(14, f"failed to connect: {error or type(error).__name__}") from error
        except asyncio.CancelledError:
            connection.close()
            raise
        self._pause = 0.0
        self._connections.append(connection)

    async def _dial(self, loop: asyncio.AbstractEventLoop, connection: Connection) -> None:
        target = self._target
        if target.path:
            await loop.create_unix_connection(lambda: connection, target.path, ssl=self._tls)
            return
        name = target.host if self._tls else None
        transport, _ = await loop.create_connection(
            lambda: connection, target.host, target.port, ssl=self._tls, server_hostname=name
        )
        sock = transport.get_extra_info("socket")
        for option in keepalive():  # servers treat HTTP/2 pings on an idle connection as abuse
            sock.setsockopt(*option)

    def close(self) -> None:
        """Close all connections."""
        if self._opening is not None:
            self._opening.cancel()  # closes a half-open connection
        for connection in self._connections:
            connection.close()


def client_tls(authorities: str | None = None, own: str | None = None, key: str | None = None) -> ssl.SSLContext:
    """Return a TLS context of PEM files: trusted authorities, own certificate and key; raise OSError."""
    context = ssl.create_default_context(cafile=authorities)
    context.set_alpn_protocols(["h2"])
    if own:
        context.load_cert_chain(own, key)
    return context
