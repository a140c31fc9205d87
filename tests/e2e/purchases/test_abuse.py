"""Clients that hold streams, and an operator who restarts a service: other customers notice neither."""

import asyncio
import shutil
import subprocess

import grpc
import pytest

from shop.inventory.v1 import inventory_service_pb2 as inventory
from tests.e2e.purchases.conftest import wish

WATCH = "/shop.inventory.v1.InventoryService/WatchAvailability"


@pytest.mark.parametrize("half_open", [False, True])
async def test_500_anonymous_streams_leave_stock_health_and_orders_working(stack, stubs, customer, market, half_open):
    sku = await market.new_sku(5)
    request = inventory.WatchAvailabilityRequest(skus=[sku]).SerializeToString()
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(stack.info["grpc"], options=options) for _ in range(5)]
    kind = "stream_stream" if half_open else "unary_stream"
    calls = [getattr(channel, kind)(WATCH) for channel in channels for _ in range(100)]
    streams = [call() if half_open else call(request) for call in calls]
    try:
        if not half_open:
            first = await asyncio.gather(*(stream.read() for stream in streams), return_exceptions=True)
            rejected = [one.code() for one in first if isinstance(one, grpc.aio.AioRpcError)]
            assert set(rejected) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
            assert 0 < len(first) - len(rejected) <= 40  # of one address
        assert (await stubs.inventory.GetStock(inventory.GetStockRequest(sku=sku))).available == 5
        assert (await market.anonymous.get("/healthz"))["status"] == "SERVING"
        order = await customer.front.post("/v1/orders", wish(sku))
        assert order["state"] == "ORDER_STATE_CONFIRMED"
    finally:
        for stream in streams:
            stream.cancel()
        for channel in channels:
            await channel.close()


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
    assert after.pid != before.pid
    assert (after.state, after.restarts) == ("ready", before.restarts)
    assert stack.run("restart", "redis").returncode == 1


@pytest.mark.skipif(shutil.which("grpcurl") is None, reason="grpcurl is not installed")
@pytest.mark.parametrize("symbol", ["shop.user.v1.AuthService", "shop.user.v1.AuthService.Login"])
def test_grpcurl_describes_services_and_methods_at_the_ingress_and_at_the_service(stack, symbol):
    for address in (stack.info["grpc"], stack.info["services"]["svc_user"]):
        command = ["grpcurl", "-plaintext", address, "describe", symbol]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert "Login" in done.stdout
