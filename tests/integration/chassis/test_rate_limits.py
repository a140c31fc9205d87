"""Rate limits of the contract: counted in the pipeline, by client, for every call from outside."""

import asyncio
from contextlib import asynccontextmanager

import grpc
import pytest
from google.rpc import error_details_pb2

from chassis import Settings
from chassis.testing import client_for
from shop.chassis.v1.chassis_errors import RateLimited
from shop.contract import RPCS
from shop.order.v1 import order_service_pb2 as order
from shop.user.v1 import auth_service_pb2 as auth
from shop.user.v1.auth_service_pb2_grpc import AuthServiceStub
from shop.user.v1.user_errors import BadCredentials

LOGIN = "/shop.user.v1.AuthService/Login"
CREATE = "/shop.order.v1.OrderService/CreateOrder"
REQUEST = auth.LoginRequest(email="a@example.com", password="a password")


async def login(request, context):
    return auth.Tokens(token_type="Bearer")


async def create_order(request, context):
    return order.Order(order_id="o-1")


@pytest.fixture
def limited(serve, redis_url, event_prefix):
    """Serves a service whose counters are in Redis: `async with limited() as app`."""

    @asynccontextmanager
    async def limited(url=redis_url, **handlers):
        settings = Settings(redis_url=url, event_prefix=event_prefix)
        async with serve(settings=settings, **{"Login": login, **handlers}) as app:
            yield app

    return limited


def outside(address, **more):
    """Metadata as the ingress sets it for a client at `address`."""
    return (("x-shop-caller", "edge"), ("x-forwarded-for", address), *more.items())


async def exhaust(call, method, metadata, request=REQUEST):
    """Make as many calls as the contract allows."""
    for _ in range(RPCS[method].rate_limit.requests // 20):
        await asyncio.gather(*(call(request, metadata=metadata) for _ in range(20)))


async def test_calls_beyond_the_limit_are_rejected_with_reason_pause_and_headers(limited, connect, failure):
    async with limited() as app, connect(app.address) as call:
        await exhaust(call.Login, LOGIN, outside("192.0.2.1"))
        rejected = await failure(call.Login(REQUEST, metadata=outside("192.0.2.1")))
        assert (rejected.code, rejected.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
        assert 30 < rejected.details[error_details_pb2.RetryInfo].retry_delay.ToSeconds() <= 60
        running = call.Login(REQUEST, metadata=outside("192.0.2.2"))
        headers = dict(await running.initial_metadata())
        assert headers["ratelimit-policy"] == '"rpc";q=300;w=60'
        assert headers["ratelimit"].startswith('"rpc";r=299;t=')
        await running


async def test_the_processes_of_a_service_count_together(limited, connect, failure):
    async with limited() as one, limited() as other, connect(one.address) as first, connect(other.address) as second:
        await exhaust(first.Login, LOGIN, outside("192.0.2.1"))
        rejected = await failure(second.Login(REQUEST, metadata=outside("192.0.2.1")))
        assert rejected.reason == "RATE_LIMITED"


async def test_an_error_of_the_handler_reports_the_limit_and_is_counted(limited, connect):
    async def refuse(request, context):
        raise BadCredentials

    async with limited(Login=refuse) as app, connect(app.address) as call:
        for left in (299, 298):
            running = call.Login(REQUEST, metadata=outside("192.0.2.1"))
            with pytest.raises(grpc.aio.AioRpcError, match="UNAUTHENTICATED"):
                await running
            assert dict(await running.initial_metadata())["ratelimit"].startswith(f'"rpc";r={left};')


async def test_a_public_method_is_counted_by_address_even_with_a_token(limited, connect, failure, issuer):
    async with limited() as app, connect(app.address) as call:
        await exhaust(call.Login, LOGIN, outside("192.0.2.1"))
        token = f"Bearer {issuer.token('user-1')}"
        rejected = await failure(call.Login(REQUEST, metadata=outside("192.0.2.1", authorization=token)))
        assert rejected.reason == "RATE_LIMITED"


async def test_all_addresses_of_one_ipv6_network_are_one_client(limited, connect, failure):
    async with limited() as app, connect(app.address) as call:
        await exhaust(call.Login, LOGIN, outside("2001:db8::1"))
        assert (await failure(call.Login(REQUEST, metadata=outside("2001:db8::ffff:2")))).reason == "RATE_LIMITED"
        await call.Login(REQUEST, metadata=outside("2001:db8:0:1::1"))


async def test_a_signed_in_user_is_counted_as_one_client_with_each_token(limited, connect, failure, issuer):
    """B35: a refreshed token is no new budget, and another address is none."""
    request = order.CreateOrderRequest(request_id="k-1")

    def bearing(user_id, address):
        return outside(address, authorization=f"Bearer {issuer.token(user_id)}")

    async with limited(CreateOrder=create_order) as app, connect(app.address) as call:
        for number in range(RPCS[CREATE].rate_limit.requests // 20):
            metadata = bearing("user-1", f"192.0.2.{number}")
            made = [call.CreateOrder(request, metadata=metadata) for _ in range(20)]
            await asyncio.gather(*made, return_exceptions=True)
        rejected = await failure(call.CreateOrder(request, metadata=bearing("user-1", "192.0.2.99")))
        assert rejected.reason == "RATE_LIMITED"
        served = await failure(call.CreateOrder(request, metadata=bearing("user-2", "192.0.2.1")))
        assert served.reason == "INVALID_REQUEST", "the limit comes before the rules of the request"


async def test_without_a_proxy_the_client_is_the_peer(limited, connect, failure):
    async with limited() as app, connect(app.address) as call:
        await exhaust(call.Login, LOGIN, (("x-shop-caller", "edge"),))
        assert (await failure(call.Login(REQUEST, metadata=outside("127.0.0.1")))).reason == "RATE_LIMITED"


async def test_without_redis_a_limit_that_fails_closed_is_counted_by_the_process(limited, connect, failure, tmp_path):
    """P17: nobody is locked out, and nobody is let through without a limit."""
    async with limited(f"unix://{tmp_path}/absent.sock") as app, connect(app.address) as call:
        await exhaust(call.Login, LOGIN, outside("192.0.2.1"))
        assert (await failure(call.Login(REQUEST, metadata=outside("192.0.2.1")))).reason == "RATE_LIMITED"
        await call.Login(REQUEST, metadata=outside("192.0.2.2"))


async def test_a_client_of_the_generated_code_knows_the_pause(limited, connect):
    async with limited() as app, connect(app.address) as call, client_for(app.address, AuthServiceStub) as client:
        await exhaust(call.Login, LOGIN, (("x-shop-caller", "edge"),))
        with pytest.raises(RateLimited) as raised:
            await client.Login(REQUEST)
        assert raised.value.retry_seconds > 30
