"""Counts calls in Redis, by its wire protocol: one script on one connection needs no library."""

import asyncio
import os
from collections import deque
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from edge_gateway.policies.rate_counters import CounterUnavailableError, RateLimitResult

#: An answer takes as long as a busy disk, on which Redis writes first.
_TIMEOUT = 1.0
#: How long a server that failed is left alone.
_PAUSE = 1.0

#: The times of the calls, by the server's clock in microseconds; calls that are refused are not added.
_SCRIPT = """
local now = redis.call('TIME')
now = now[1] * 1000000 + now[2]
local per = tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - per)
local count = redis.call('ZCARD', KEYS[1])
local allowed = 0
if count < tonumber(ARGV[1]) then
  redis.call('ZADD', KEYS[1], now, now .. ':' .. ARGV[3])
  redis.call('PEXPIRE', KEYS[1], math.ceil(per / 1000))
  allowed = 1
  count = count + 1
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return {allowed, count, first[2] and math.ceil(first[2] + per - now) or 0}
"""


class RedisCounter:
    """Counts on one connection, opened when first needed and again after a failure."""

    def __init__(self, url: str) -> None:
        """`url` is redis://, rediss:// or unix:// as everywhere, with an optional password and database."""
        self._url = urlsplit(url)
        self._connection: _Connection | None = None
        self._lock = asyncio.Lock()
        self._paused_until = 0.0
        self._member = os.urandom(8).hex()
        self._count = 0

    async def acquire(self, key: str, requests: int, per: float) -> RateLimitResult:
        """Counts one call, or raises CounterUnavailableError soon."""
        now = asyncio.get_running_loop().time()
        if now < self._paused_until:
            raise CounterUnavailableError("Redis failed a moment ago")
        self._count += 1
        member = f"{self._member}{self._count}"
        try:
            async with asyncio.timeout(_TIMEOUT):
                connection = await self._connected()
                reply = await connection.call(
                    "EVAL", _SCRIPT, "1", key, str(requests), str(round(per * 1_000_000)), member
                )
        except (OSError, TimeoutError, EOFError) as error:
            self._paused_until = now + _PAUSE
            await self.close()
            raise CounterUnavailableError(f"Redis: {error or type(error).__name__}") from error
        allowed, count, reset = reply
        return RateLimitResult(bool(allowed), requests - count, reset / 1_000_000)

    async def close(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()

    async def _connected(self) -> "_Connection":
        async with self._lock:
            if self._connection is not None and self._connection.lost:
                await self.close()  # Redis was restarted, perhaps: that is no reason to refuse the next call
            if self._connection is None:
                self._connection = await self._open()
            return self._connection

    async def _open(self) -> "_Connection":
        url = self._url
        if url.scheme == "unix":
            streams = await asyncio.open_unix_connection(unquote(url.path))
        else:
            host, port = url.hostname or "127.0.0.1", url.port or 6379
            streams = await asyncio.open_connection(host, port, ssl=url.scheme == "rediss" or None)
        connection = _Connection(*streams)
        try:
            await self._introduce(connection)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _introduce(self, connection: "_Connection") -> None:
        url = self._url
        if url.password:
            user = [unquote(url.username)] if url.username else []
            await connection.call("AUTH", *user, unquote(url.password))
        database = parse_qs(url.query).get("db", ["0"])[0] if url.scheme == "unix" else url.path.strip("/")
        if database not in ("", "0"):
            await connection.call("SELECT", database)


class _Connection:
    """Commands go out as they come, and are answered in that order."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._pump = asyncio.ensure_future(self._answer())

    @property
    def lost(self) -> bool:
        return self._pump.done()

    async def call(self, *words: str) -> Any:
        if self.lost:
            raise EOFError("the connection was lost")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        encoded = [word.encode() for word in words]
        parts = [b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded]
        self._writer.write(b"*%d\r\n" % len(parts) + b"".join(parts))
        return await future

    async def close(self) -> None:
        self._pump.cancel()
        await asyncio.gather(self._pump, return_exceptions=True)
        self._writer.close()

    async def _answer(self) -> None:
        try:
            while True:
                reply = await self._read()
                future = self._waiting.popleft()
                if future.done():  # its caller has given up
                    continue
                if isinstance(reply, OSError):
                    future.set_exception(reply)
                else:
                    future.set_result(reply)
        finally:
            for future in self._waiting:
                if not future.done():
                    future.set_exception(EOFError("the connection was lost"))

    async def _read(self) -> Any:
        line = (await self._reader.readuntil(b"\r\n"))[:-2]
        kind, text = line[:1], line[1:].decode()
        if kind == b":":
            return int(text)
        if kind == b"*":
            return [await self._read() for _ in range(int(text))]
        if kind == b"$":
            return None if text == "-1" else (await self._reader.readexactly(int(text) + 2))[:-2]
        return OSError(text) if kind == b"-" else text
