"""Readiness probes: each returns whether a process is ready, within a time limit."""

import asyncio
from collections.abc import Awaitable, Callable

import grpc.aio
import psutil

Probe = Callable[[], Awaitable[bool]]

_LIMIT = 2.0  # seconds for one probe


def grpc_serving(address: str) -> Probe:
    """Return a probe: grpc.health.v1 reports SERVING for the server as a whole."""
    serving = b"\x08\x01"  # HealthCheckResponse{status: SERVING}; the empty request means the whole server

    async def probe() -> bool:
        async with grpc.aio.insecure_channel(address) as channel:
            check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            try:
                answer = await check(b"", timeout=_LIMIT)
            except grpc.aio.AioRpcError:
                return False
            return answer == serving

    return probe


def grpc_answers(address: str) -> Probe:
    """Return a probe: the server replies to a health check, whatever it reports."""
    gone = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

    async def probe() -> bool:
        async with grpc.aio.insecure_channel(address) as channel:
            check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            try:
                await check(b"", timeout=_LIMIT)
            except grpc.aio.AioRpcError as error:
                return error.code() not in gone
            return True

    return probe


def http_answers(address: str, path: str) -> Probe:
    """Return a probe: GET `path` has a response, whatever its status."""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()

    async def probe() -> bool:
        return (await _first_line(address, request)).startswith(b"HTTP/")

    return probe


def listens(pid: int, address: str) -> bool:
    """Return whether the process itself listens on the address; others may do so as well."""
    port = int(address.rpartition(":")[2])
    try:
        connections = psutil.Process(pid).net_connections("tcp")
    except psutil.Error:
        return False
    return any(one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port for one in connections)


def http_ok(address: str, path: str) -> Probe:
    """Return a probe: GET `path` answers 200. `address` is host:port or unix:/path."""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()

    async def probe() -> bool:
        first = await _first_line(address, request)
        return first.split(b" ")[1:2] == [b"200"]

    return probe


def tcp_open(address: str) -> Probe:
    """Return a probe: the address accepts connections."""

    async def probe() -> bool:
        try:
            async with asyncio.timeout(_LIMIT):
                _, writer = await _connect(address)
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError):
            return False
        return True

    return probe


def redis_ready(address: str) -> Probe:
    """Return a probe: Redis has loaded its data and answers PING."""

    async def probe() -> bool:
        return await _first_line(address, b"PING\r\n") == b"+PONG\r\n"

    return probe


async def _first_line(address: str, request: bytes) -> bytes:
    """Return the first line of the server's reply; nothing when it does not answer."""
    try:
        async with asyncio.timeout(_LIMIT):
            reader, writer = await _connect(address)
            try:
                writer.write(request)
                return await reader.readline()
            finally:
                writer.close()
                await writer.wait_closed()
    except (OSError, TimeoutError):
        return b""


async def _connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if address.startswith("unix:"):
        return await asyncio.open_unix_connection(address.removeprefix("unix:"))
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port))
