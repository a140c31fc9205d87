"""Calls between services: deadline, identity and trace are passed on, errors restored, idempotent calls retried."""

import asyncio

import grpc
import pytest

from chassis import OutcomeUnknown, Settings, current_call, require_owner
from chassis.rpc.client import Clients, UpstreamError
from chassis.testing import as_user, client_for, eventually
from shop.chassis.v1.chassis_errors import Overloaded
from shop.contract import RPCS, IdempotencyLevel
from shop.inventory.v1 import inventory_service_pb2 as inventory
from shop.inventory.v1.inventory_errors import SkuNotFound
from shop.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub
from shop.order.v1 import order_service_pb2 as order
from shop.order.v1.order_errors import OrderNotFound
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub
from shop.user.v1 import auth_service_pb2 as user
from shop.user.v1.auth_service_pb2_grpc import AuthServiceStub

INVENTORY, ORDER, USER = "shop.inventory.v1.InventoryService", "shop.order.v1.OrderService", "shop.user.v1.AuthService"
STOCK = inventory.GetStockRequest(sku="a")
RESERVE = inventory.ReserveStockRequest(
    reservation_id="r", order_id="o", lines=[inventory.StockLine(sku="a", quantity=1)]
)


@pytest.fixture
async def pair(serve):
    """Yield svc_order, whose GetOrder calls svc_inventory's GetStock, with each one's call and its remaining time."""
    seen = {}

    async def get_stock(request, context):
        seen["svc_inventory"] = current_call(), current_call().remaining()
        return inventory.Stock(sku=request.sku, available=7)

    async with serve(GetStock=get_stock) as below:
        client = Clients(f"{INVENTORY}={below.address}", "svc_order")
        stock = client.stub(InventoryServiceStub)

        async def get_order(request, context):
            seen["svc_order"] = current_call(), current_call().remaining()
            require_owner("user-1", OrderNotFound(order_id=request.order_id))
            answer = await stock.GetStock(STOCK)
            return order.Order(order_id=str(answer.available))

        async with serve(GetOrder=get_order) as above:
            yield above, seen
        await client.close()


async def test_deadline_identity_and_trace_are_passed_on(pair, issuer):
    above, seen = pair
    authorization = f"Bearer {issuer.token('user-1', 'staff')}"
    async with client_for(above.address, OrderServiceStub) as client:
        with as_user(authorization):
            trace = current_call().traceparent
            answer = await client.GetOrder(order.GetOrderRequest(order_id="o-1"), timeout=1.5)
    assert answer.order_id == "7"
    (outer, outer_time), (inner, inner_time) = seen["svc_order"], seen["svc_inventory"]
    assert (outer.caller, inner.caller) == ("edge", "svc_order")
    assert outer.user == inner.user
    assert inner.user.id == "user-1"
    assert inner.authorization == authorization
    assert outer.traceparent == inner.traceparent == trace
    assert inner_time < outer_time + 0.1 < 1.7  # what gRPC sends is rounded up


async def test_without_a_deadline_the_contract_sets_one(serve):
    seen = []

    async def get_stock(request, context):
        seen.append(context.time_remaining())
        return inventory.Stock()

    async with serve(GetStock=get_stock) as app, client_for(app.address, InventoryServiceStub) as client:
        await client.GetStock(STOCK)
        await client.GetStock(STOCK, timeout=60)
        await client.GetStock(STOCK, timeout=1.0)
    contract = RPCS[f"/{INVENTORY}/GetStock"].timeout
    assert all(contract / 4 < remaining < contract + 0.1 for remaining in seen[:2])
    assert 0 < seen[2] < 1.1 < contract


async def test_a_call_after_its_deadline_makes_no_other_call(serve, connect, failure):
    """The second service's work would be wasted."""
    calls = []

    async def get_stock(request, context):
        calls.append(context.time_remaining())
        await asyncio.Event().wait()

    async with serve(GetStock=get_stock) as below, client_for(below.address, InventoryServiceStub) as stock:

        async def get_jwks(request, context):
            await stock.GetStock(STOCK)

        async with serve(GetJwks=get_jwks) as above, connect(above.address) as call:
            failed = await failure(
                call.GetJwks(user.GetJwksRequest(), metadata=(("x-shop-caller", "edge"),), timeout=1.0)
            )
    assert failed.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert [remaining < 1.1 for remaining in calls] == [True]  # what gRPC sends is rounded up


async def test_cancelling_a_call_cancels_the_calls_it_makes(serve):
    began, ended = asyncio.Event(), asyncio.Event()

    async def get_stock(request, context):
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with serve(GetStock=get_stock) as app, client_for(app.address, InventoryServiceStub) as client:
        going = asyncio.create_task(client.GetStock(STOCK))
        await eventually(began.is_set)
        going.cancel()
        await eventually(ended.is_set)
        with pytest.raises(asyncio.CancelledError):
            await going


async def test_an_error_is_raised_as_its_class(serve):
    async def get_stock(request, context):
        raise SkuNotFound(sku=request.sku)

    async with serve(GetStock=get_stock) as app, client_for(app.address, InventoryServiceStub) as client:
        with pytest.raises(SkuNotFound) as refusal:
            await client.GetStock(STOCK)
    assert (refusal.value.metadata, refusal.value.message) == ({"sku": "a"}, SkuNotFound(sku="a").message)


async def test_an_error_of_a_stream_is_raised_as_its_class_after_its_messages(serve):
    async def watch(request, context):
        yield inventory.WatchAvailabilityResponse(resume_token="1")
        raise SkuNotFound(sku="a")

    async with (
        serve(WatchAvailability=watch) as app,
        client_for(app.address, InventoryServiceStub) as client,
    ):
        messages = client.WatchAvailability(inventory.WatchAvailabilityRequest(skus=["a"]))
        assert (await anext(messages)).resume_token == "1"
        with pytest.raises(SkuNotFound):
            await anext(messages)


class Flaky:
    """Is unavailable `times` times, then replies."""

    def __init__(self, times, reply):
        self.times = times
        self.reply = reply
        self.calls = 0

    async def __call__(self, _request, _context):
        self.calls += 1
        if self.calls <= self.times:
            raise ConnectionResetError
        return self.reply


async def test_a_read_is_retried_while_the_service_is_unavailable(serve):
    get_stock = Flaky(2, inventory.Stock(sku="a"))
    async with serve(GetStock=get_stock) as app, client_for(app.address, InventoryServiceStub) as client:
        assert (await client.GetStock(STOCK)).sku == "a"
    assert get_stock.calls == 3


async def test_a_request_with_a_request_id_is_retried_a_limited_number_of_times(serve):
    reserve = Flaky(100, None)
    async with (
        serve(ReserveStock=reserve) as app,
        client_for(app.address, InventoryServiceStub, caller="svc_order") as client,
    ):
        with pytest.raises(OutcomeUnknown) as unknown:
            await client.ReserveStock(RESERVE)
    assert unknown.value.code is grpc.StatusCode.UNAVAILABLE
    assert reserve.calls == 3


async def test_a_request_that_is_not_idempotent_is_sent_once(serve):
    """Login creates a new session each time."""
    assert RPCS[f"/{USER}/Login"].idempotency_level is IdempotencyLevel.UNKNOWN
    login = Flaky(1, user.Tokens())
    request = user.LoginRequest(email="a@example.com", password="password-1")
    async with serve(Login=login) as app, client_for(app.address, AuthServiceStub) as client:
        with pytest.raises(OutcomeUnknown):
            await client.Login(request)
    assert login.calls == 1


async def test_a_rejected_request_is_not_retried(serve):
    calls = []

    async def get_stock(request, context):
        calls.append(request)
        raise SkuNotFound(sku="a")

    async with serve(GetStock=get_stock) as app, client_for(app.address, InventoryServiceStub) as client:
        with pytest.raises(SkuNotFound):
            await client.GetStock(STOCK)
    assert len(calls) == 1


async def test_a_service_without_a_reply_leaves_the_outcome_unknown(serve):
    async def get_stock(request, context):
        await asyncio.Event().wait()

    async with serve(GetStock=get_stock) as app, client_for(app.address, InventoryServiceStub) as client:
        with pytest.raises(OutcomeUnknown) as unknown:
            await client.GetStock(STOCK, timeout=0.2)
    assert unknown.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_service_that_ended_leaves_the_outcome_unknown_before_the_deadline():
    """Not only when the deadline passes."""
    async with client_for("127.0.0.1:1", InventoryServiceStub) as client:
        with pytest.raises(OutcomeUnknown) as unknown:
            await client.GetStock(STOCK)
    assert unknown.value.code is grpc.StatusCode.UNAVAILABLE


async def test_a_call_that_an_overloaded_service_rejects_has_its_reason_and_a_time_to_retry(serve):
    began, go_on = asyncio.Event(), asyncio.Event()

    async def get_stock(request, context):
        began.set()
        await go_on.wait()
        return inventory.Stock(sku=request.sku)

    settings = Settings(max_concurrent_rpcs=1)
    async with (
        serve(settings=settings, GetStock=get_stock) as app,
        client_for(app.address, InventoryServiceStub) as client,
    ):
        served = asyncio.create_task(client.GetStock(STOCK))
        await eventually(began.is_set)
        with pytest.raises(Overloaded) as rejected:
            await client.GetStock(STOCK)
        go_on.set()
        assert (await served).sku == "a"
    assert rejected.value.retry_seconds == 1


async def test_upstreams_name_services_or_all_others(serve):
    async def get_stock(request, context):
        return inventory.Stock(sku=request.sku)

    async with serve(GetStock=get_stock) as app:
        clients = Clients(f"{ORDER}=127.0.0.1:1,*={app.address}", "edge")
        assert (await clients.stub(InventoryServiceStub).GetStock(STOCK)).sku == "a"
        with pytest.raises(OutcomeUnknown):
            await clients.stub(OrderServiceStub).GetOrder(order.GetOrderRequest(order_id="o"))
        await clients.close()


@pytest.mark.parametrize("upstreams", ["nonsense", "=127.0.0.1:1", f"{ORDER}="])
def test_malformed_upstreams_are_rejected(upstreams):
    with pytest.raises(UpstreamError):
        Clients(upstreams, "edge")


def test_a_service_without_an_upstream_is_an_error():
    with pytest.raises(UpstreamError, match=INVENTORY):
        Clients(f"{ORDER}=127.0.0.1:1", "edge").stub(InventoryServiceStub)


async def test_resources_that_close_at_shutdown_may_still_call_services(serve):
    """As in svc_order, whose running steps end."""
    answers = []

    async def get_stock(request, context):
        return inventory.Stock(sku=request.sku)

    async def compose(app):
        stock = app.client(InventoryServiceStub)

        async def close():
            answers.append(await stock.GetStock(STOCK))

        app.on_close(close)

    async with serve(GetStock=get_stock) as below:
        async with serve(
            settings=Settings(upstreams=f"{INVENTORY}={below.address}"), name="svc_order", compose=compose
        ):
            pass
        assert [answer.sku for answer in answers] == ["a"]
