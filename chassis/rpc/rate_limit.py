"""Rate limits of the contract, for every call from outside, whichever protocol it came by.

The ingress and the edge hand on the client's address; calls between services are not limited.
"""

import logging
import math
from ipaddress import IPv6Address, ip_address

from chassis.context import Call, current_call
from chassis.rpc.rate_counters import Counter, CounterUnavailableError, LocalCounter, RateLimitResult
from chassis.rpc.redis_counter import RedisCounter
from chassis.settings import Settings, SettingsError
from shop.chassis.v1.chassis_errors import RateLimited
from shop.contract import EDGE, Access, RateLimit, Rpc

log = logging.getLogger(__name__)

#: A household or a server has at least so many bits of IPv6 addresses to choose from.
_IPV6_HOST_BITS = 64


class RateLimiter:
    """Applies each method's own limit."""

    def __init__(self, counter: Counter, prefix: str = "") -> None:
        """Count in `counter`, with `prefix` before all keys."""
        self._counter = counter
        self._prefix = prefix
        self._local = LocalCounter()

    @classmethod
    def connect(cls, settings: Settings) -> "RateLimiter":
        """Return a limiter on the Redis of the settings, or without one on a counter of this process."""
        try:
            url = settings.cache_url or settings.redis_url
            counter = RedisCounter(url) if url else LocalCounter()
        except ValueError as error:
            raise SettingsError(f"CACHE_URL or REDIS_URL cannot be used: {error}") from error
        return cls(counter, settings.event_prefix)

    async def close(self) -> None:
        """Close the connections of the counter."""
        await self._counter.close()

    async def check(self, rule: Rpc, call: Call) -> None:
        """Count a call from outside, and report the limit in the headers of its reply; raises RateLimited.

        While the counter is unavailable, a limit that fails closed is counted by this process alone, and another one
        is not counted.
        """
        limit = rule.rate_limit
        if limit is None or call.caller != EDGE:
            return
        key = f"{self._prefix}rate:{call.method}:{_client(rule, call)}"
        try:
            result = await self._counter.acquire(key, limit.requests, limit.per)
        except CounterUnavailableError as error:
            log.warning("rate limits are not counted together", extra={"error": str(error)})
            if not limit.fail_closed:
                return
            result = await self._local.acquire(key, limit.requests, limit.per)
        call.headers.update(_headers(limit, result))
        if not result.allowed:
            raise RateLimited().retry_after(max(result.reset, 0.001))


def _client(rule: Rpc, call: Call) -> str:
    """Return the key of a client: its user, but its address where a token is optional: anyone gets many tokens."""
    if call.user is not None and rule.access is not Access.PUBLIC:
        return f"user:{call.user.id}"
    return f"client:{client_network(call.address)}"


def calling_network() -> str:
    """Return the network of the client whose call is being served; empty outside of a call."""
    call = current_call()
    return client_network(call.address) if call else ""


def client_network(address: str) -> str:
    """Return the address, or the network that one client has as many IPv6 addresses of as it likes."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(IPv6Address(int(parsed) >> _IPV6_HOST_BITS << _IPV6_HOST_BITS))
    return str(parsed)


def _headers(limit: RateLimit, result: RateLimitResult) -> dict[str, str]:
    return {
        "ratelimit-policy": f'"rpc";q={limit.requests};w={max(1, round(limit.per))}',
        "ratelimit": f'"rpc";r={result.remaining};t={max(0, math.ceil(result.reset))}',
    }
