"""Clients that hold streams, and an operator who restarts a service: other customers notice neither."""

import asyncio

import grpc
import pytest

from shop.inventory.v1 import inventory_service_pb2 as inventory
from tests.e2e.purchases.conftest import wish

WATCH = "/shop.inventory.v1.InventoryService/WatchAvailability"


@pytest.mark.parametrize("half_open", [False, True])
async def test_500_anonymous_streams_leave_stock_health_and_orders_working(
    stack, stubs, anonymous, customer, market, half_open
):
    sku = await market.new_sku(5)
    request = inventory.WatchAvailabilityRequest(skus=[sku]).SerializeToString()
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(stack.info["grpc"], options=options) for _ in range(5)]
    kind = "stream_stream" if half_open else "unary_stream"
    calls = [getattr(channel, kind)(WATCH) for channel in channels for _ in range(100)]
    streams = [call() if half_open else call(request) for call in calls]
    try:
        if not half_open:
            first = await asyncio.gather(*(_first(stream) for stream in streams))
            assert 0 < sum(first) <= 40  # of one address
        assert (await stubs.inventory.GetStock(inventory.GetStockRequest(sku=sku))).available == 5
        assert (await anonymous.get("/healthz"))["status"] == "SERVING"
        order = await customer.front.post("/v1/orders", wish(sku))
        assert order["state"] == "ORDER_STATE_CONFIRMED"
    finally:
        for stream in streams:
            stream.cancel()
        for channel in channels:
            await channel.close()


async def _first(stream):
    """Return whether the stream was admitted."""
    try:
        await stream.read()
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        return False
    return True


async def test_a_restart_of_a_service_fails_no_call(stack, customer):
    before = stack.process("svc_order")
    restarting = asyncio.create_task(asyncio.to_thread(stack.run, "restart", "svc_order"))
    reads = 0
    while not restarting.done() or reads < 20:
        assert (await customer.front.get("/v1/orders"))["orders"] == []
        reads += 1
        if restarting.done():
            await asyncio.sleep(0.01)
    done = await restarting
    assert done.returncode == 0, done.stderr
    after = stack.process("svc_order")
    assert after["pid"] != before["pid"]
    assert (after["state"], after["restarts"]) == ("ready", before["restarts"])
    assert stack.run("restart", "redis").returncode == 1
