"""Counts calls in Redis, for all processes of a service together."""

import asyncio
import itertools
import os

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from chassis.rpc.rate_counters import CounterUnavailableError, RateLimitResult

#: Seconds for one count. Redis may write to its disk first, which may be busy.
_TIMEOUT = 1.0
#: Seconds without a further attempt after a failure.
_PAUSE = 5.0
#: More calls at the same time wait for one of these.
_CONNECTIONS = 8

#: Keeps the times of the calls, by the server's clock in microseconds; calls beyond the limit are not added.
_SCRIPT = """
local now = redis.call('TIME')
now = now[1] * 1000000 + now[2]
local per = tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - per)
local count = redis.call('ZCARD', KEYS[1])
local allowed = 0
if count < tonumber(ARGV[1]) then
  redis.call('ZADD', KEYS[1], now, ARGV[3])
  redis.call('PEXPIRE', KEYS[1], math.ceil(per / 1000))
  allowed = 1
  count = count + 1
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return {allowed, count, first[2] and math.ceil(first[2] + per - now) or 0}
"""


class RedisCounter:
    """Counts by a script in Redis; fails fast while Redis is unavailable."""

    def __init__(self, url: str) -> None:
        """Take a redis://, rediss:// or unix:// URL; connect when first needed."""
        # One retry, at once: a connection that Redis closed while it was idle is no reason to reject a call.
        retry = Retry(NoBackoff(), 1)
        pool = redis.BlockingConnectionPool.from_url(url, max_connections=_CONNECTIONS, protocol=2, retry=retry)
        self._client = redis.Redis.from_pool(pool)
        self._script = self._client.register_script(_SCRIPT)
        self._paused_until = 0.0
        #: Together they name each call differently from those of other processes.
        self._process, self._number = os.urandom(8).hex(), itertools.count(1)

    async def acquire(self, key: str, requests: int, per: float) -> RateLimitResult:
        """Count one call, of at most `requests` in `per` seconds; raise CounterUnavailableError within a second."""
        now = asyncio.get_running_loop().time()
        if now < self._paused_until:
            raise CounterUnavailableError("Redis failed a moment ago")
        name = f"{self._process}{next(self._number)}"
        try:
            async with asyncio.timeout(_TIMEOUT):
                allowed, count, reset = await self._script(keys=[key], args=[requests, round(per * 1_000_000), name])
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            self._paused_until = now + _PAUSE
            raise CounterUnavailableError(f"Redis: {error or type(error).__name__}") from error
        return RateLimitResult(bool(allowed), requests - count, reset / 1_000_000)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
