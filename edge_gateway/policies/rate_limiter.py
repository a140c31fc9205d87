"""Rate limits by method and client, with the standard RateLimit headers."""

import hashlib
import logging

from edge_gateway.errors import EdgeError, error_info, retry_info
from edge_gateway.http.exchange import Request
from edge_gateway.http.headers import Header
from edge_gateway.policies.rate_counters import Counter, CounterUnavailableError, RateLimitResult
from edge_gateway.routing.descriptors import RateLimit
from edge_gateway.routing.rules import Rule

log = logging.getLogger("edge_gateway")


class RateLimiter:
    """Applies each method's own limit."""

    def __init__(self, counter: Counter, trusted_hops: int) -> None:
        self._counter = counter
        self._trusted_hops = trusted_hops

    async def check(self, request: Request, rule: Rule) -> list[Header]:
        """Count a call; return the RateLimit headers, or raise EdgeError 429, or 503 if the counter is unavailable."""
        policy = rule.rpc.policy
        limit = policy.rate_limit if policy is not None else None
        if limit is None or policy is None:
            return []
        key = f"edge:rate:{rule.rpc.path}:{self._caller_key(request, public=policy.access == 'PUBLIC')}"
        try:
            result = await self._counter.acquire(key, limit.requests, limit.per)
        except CounterUnavailableError as error:
            if not limit.fail_closed:
                return []
            log.warning("rate limits cannot be counted: %s", error)
            info = error_info("RATE_LIMITED", method=rule.rpc.path)
            raise EdgeError(14, "the rate limit cannot be checked; try again later", (info, retry_info(1))) from error
        headers = _headers(limit, result)
        if result.allowed:
            return headers
        info = error_info("RATE_LIMITED", method=rule.rpc.path)
        raise EdgeError(
            8, "too many calls; try again later", (info, retry_info(max(result.reset, 0.001))), headers=headers
        )

    def _caller_key(self, request: Request, *, public: bool) -> str:
        """Return the key of a caller: the token's hash, or on public methods and without a token the address."""
        token = request.headers.get(b"authorization")
        if token and not public:
            return "user:" + hashlib.blake2b(token, digest_size=16).hexdigest()
        return "client:" + request.client(self._trusted_hops)


def _headers(limit: RateLimit, result: RateLimitResult) -> list[Header]:
    window, reset = max(1, round(limit.per)), max(0, -int(-result.reset // 1))
    return [
        (b"ratelimit-policy", b'"rpc";q=%d;w=%d' % (limit.requests, window)),
        (b"ratelimit", b'"rpc";r=%d;t=%d' % (result.remaining, reset)),
    ]
