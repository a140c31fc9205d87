"""Whose calls are counted, and as which client."""

import pytest

from chassis.context import Call, User
from chassis.rpc.access import client_address
from chassis.rpc.rate_counters import CounterUnavailableError, LocalCounter
from chassis.rpc.rate_limit import RateLimiter, client_network
from shop.chassis.v1.chassis_errors import RateLimited
from shop.contract import Access, RateLimit, Rpc


def rule(access=Access.PUBLIC, *, fail_closed=False):
    return Rpc(
        service="s",
        method="M",
        request_type="R",
        response_type="R",
        access=access,
        callers=("edge", "*"),
        rate_limit=RateLimit(requests=1, per=60, fail_closed=fail_closed),
    )


class Unavailable:
    async def acquire(self, *_limit):
        raise CounterUnavailableError


async def rejected(limiter, rule, *calls):
    """Return which calls are beyond the limit."""
    found = []
    for call in calls:
        try:
            await limiter.check(rule, call)
            found.append(False)
        except RateLimited:
            found.append(True)
    return found


def call(caller="edge", address="192.0.2.1", user=""):
    return Call(method="/s/M", caller=caller, address=address, user=User(id=user) if user else None)


async def test_calls_from_outside_are_limited_and_calls_between_services_are_not():
    limiter = RateLimiter(LocalCounter())
    assert await rejected(limiter, rule(), call(), call()) == [False, True]
    assert await rejected(limiter, rule(), call("svc_order"), call("svc_order")) == [False, False]


async def test_a_user_is_one_client_where_the_method_requires_one():
    limiter = RateLimiter(LocalCounter())
    calls = call(user="a"), call(user="a", address="192.0.2.2"), call(user="b")
    assert await rejected(limiter, rule(Access.USER), *calls) == [False, True, False]


async def test_a_user_is_an_address_where_anyone_may_call():
    limiter = RateLimiter(LocalCounter())
    calls = call(user="a"), call(user="b"), call(user="a", address="192.0.2.2")
    assert await rejected(limiter, rule(Access.PUBLIC), *calls) == [False, True, False]


@pytest.mark.parametrize(("fail_closed", "expected"), [(True, [False, True]), (False, [False, False])])
async def test_while_the_counter_is_unavailable_a_closed_limit_is_counted_locally(fail_closed, expected):
    limiter = RateLimiter(Unavailable())
    assert await rejected(limiter, rule(fail_closed=fail_closed), call(), call()) == expected


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("no address", "no address"),
    ],
)
def test_the_network_of_an_address(address, network):
    assert client_network(address) == network


@pytest.mark.parametrize(
    ("forwarded", "peer", "address"),
    [
        ("192.0.2.1", "ipv4:127.0.0.1:4000", "192.0.2.1"),
        ("198.51.100.1, 192.0.2.1", "ipv4:127.0.0.1:4000", "192.0.2.1"),
        ("", "ipv4:127.0.0.1:4000", "127.0.0.1"),
        ("", "ipv6:%5B::1%5D:4000", "::1"),
        ("", "unix:", "unix"),
    ],
)
def test_the_client_is_the_address_that_the_last_proxy_saw(forwarded, peer, address):
    metadata = {"x-forwarded-for": forwarded} if forwarded else {}
    assert client_address(metadata, lambda: peer) == address
