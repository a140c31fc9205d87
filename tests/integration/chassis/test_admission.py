"""Admission and the end of streams on a real server: streams have their own budget, and a duration."""

import asyncio
import time
from contextlib import asynccontextmanager

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chassis import Settings, current_user, require_owner
from chassis.testing import eventually
from shop.inventory.v1 import inventory_service_pb2 as pb
from shop.order.v1 import order_service_pb2 as order
from shop.order.v1.order_errors import OrderNotFound

EDGE = (("x-shop-caller", "edge"),)
MESH = (("x-shop-caller", "svc_order"),)
STOCK = pb.GetStockRequest(sku="a")
WATCH = pb.WatchAvailabilityRequest(skus=["a"])


async def get_stock(request, context):
    return pb.Stock(sku=request.sku)


async def watch_availability(request, context):
    yield pb.WatchAvailabilityResponse(resume_token="1")
    await asyncio.Event().wait()


async def watch_order(request, context):
    yield order.WatchOrderResponse(resume_token="1")
    await asyncio.Event().wait()


def from_address(address):
    return (*EDGE, ("x-forwarded-for", address))


@asynccontextmanager
async def watching(call, count, metadata):
    """Hold `count` streams that have had their first message."""
    streams = [call.WatchAvailability(WATCH, metadata=metadata) for _ in range(count)]
    try:
        for stream in streams:
            assert (await stream.read()).resume_token == "1"
        yield
    finally:
        for stream in streams:
            stream.cancel()


async def test_streams_beyond_their_budget_are_rejected_and_unary_calls_are_served(serve, connect, failure):
    settings = Settings(max_streams=6, max_client_streams=6, max_concurrent_rpcs=5)
    async with (
        serve(settings=settings, GetStock=get_stock, WatchAvailability=watch_availability) as app,
        connect(app.address) as call,
        grpc.aio.insecure_channel(app.address) as channel,
    ):
        async with watching(call, 6, from_address("192.0.2.1")):
            rejected = await failure(call.WatchAvailability(WATCH, metadata=from_address("192.0.2.2")).read())
            assert (rejected.code, rejected.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
            assert rejected.details[error_details_pb2.RetryInfo].retry_delay.seconds == 1
            for _ in range(10):
                assert (await call.GetStock(STOCK, metadata=EDGE)).sku == "a"
            health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            assert health.status == health_pb2.HealthCheckResponse.SERVING
        await eventually(lambda: _opens(call))


async def _opens(call):
    try:
        async with watching(call, 1, from_address("192.0.2.2")):
            return True
    except grpc.aio.AioRpcError:
        return False


@pytest.mark.parametrize("signed_in", [False, True])
async def test_one_client_cannot_use_up_the_streams_of_others(serve, connect, failure, issuer, signed_in):
    """A client is an end user, or else an address."""

    def client(number):
        if not signed_in:
            return from_address(f"192.0.2.{number}")
        return (*from_address("192.0.2.1"), ("authorization", f"Bearer {issuer.token(f'user-{number}')}"))

    def watch(number):
        if signed_in:
            return call.WatchOrder(order.WatchOrderRequest(order_id="o"), metadata=client(number))
        return call.WatchAvailability(WATCH, metadata=client(number))

    async def owned(request, context):
        require_owner(current_user().id, OrderNotFound(order_id="o"))
        async for message in watch_order(request, context):
            yield message

    settings = Settings(max_client_streams=3)
    async with (
        serve(settings=settings, WatchAvailability=watch_availability, WatchOrder=owned) as app,
        connect(app.address) as call,
    ):
        held = [watch(1) for _ in range(3)]
        for stream in held:
            await stream.read()
        rejected = await failure(watch(1).read())
        assert (rejected.code, rejected.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        assert (await watch(2).read()).resume_token == "1"


async def test_a_part_of_the_unary_budget_is_for_callers_of_the_mesh_alone(serve, connect, failure):
    began, go_on = asyncio.Semaphore(0), asyncio.Event()

    async def waiting(request, context):
        began.release()
        await go_on.wait()
        return pb.Stock(sku=request.sku)

    async with serve(settings=Settings(max_concurrent_rpcs=10), GetStock=waiting) as app, connect(app.address) as call:
        calls = [call.GetStock(STOCK, metadata=EDGE) for _ in range(8)]
        for _ in calls:
            await began.acquire()
        rejected = await failure(call.GetStock(STOCK, metadata=EDGE))
        assert (rejected.code, rejected.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        assert rejected.details[error_details_pb2.RetryInfo].retry_delay.seconds == 1
        calls += [call.GetStock(STOCK, metadata=MESH) for _ in range(2)]
        for _ in range(2):
            await began.acquire()
        assert (await failure(call.GetStock(STOCK, metadata=MESH))).reason == "OVERLOADED"
        go_on.set()
        assert [(await one).sku for one in calls] == ["a"] * 10


async def test_a_stream_ends_at_its_longest_duration_with_its_own_reason(serve, connect, failure):
    settings = Settings(max_stream_seconds=0.3)
    async with (
        serve(settings=settings, WatchAvailability=watch_availability) as app,
        connect(app.address) as call,
    ):
        stream = call.WatchAvailability(WATCH, metadata=EDGE)
        assert (await stream.read()).resume_token == "1"
        ended = await failure(stream.read())
    assert (ended.code, ended.reason) == (grpc.StatusCode.ABORTED, "STREAM_EXPIRED")


async def test_a_stream_ends_when_the_token_that_opened_it_expires(serve, connect, failure, issuer):
    """A token is accepted for 30 s after its expiry, so that clocks may differ; so long does its stream last."""
    token = issuer.token("user-1", exp=int(time.time()) - 28)
    async with serve(WatchAvailability=watch_availability) as app, connect(app.address) as call:
        stream = call.WatchAvailability(WATCH, metadata=(*EDGE, ("authorization", f"Bearer {token}")))
        assert (await stream.read()).resume_token == "1"
        ended = await failure(stream.read())
    assert (ended.code, ended.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID")


async def test_a_timeout_of_the_handler_is_not_the_end_of_the_stream(serve, connect, failure):
    async def slow(request, context):
        yield pb.WatchAvailabilityResponse(resume_token="1")
        raise TimeoutError

    async with serve(WatchAvailability=slow) as app, connect(app.address) as call:
        stream = call.WatchAvailability(WATCH, metadata=EDGE)
        await stream.read()
        assert (await failure(stream.read())).code is grpc.StatusCode.DEADLINE_EXCEEDED
