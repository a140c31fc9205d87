"""ACCESS_OWNER: a resource is shown to its owner and to the roles of the contract, and never without a check."""

from dataclasses import replace

import grpc
import pytest

from chassis import idempotent, owner_filter, require_owner
from chassis.testing import as_user, client_for
from shop.contract import RPCS, Access
from shop.inventory.v1 import inventory_service_pb2 as inventory
from shop.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub
from shop.order.v1 import order_service_pb2 as pb
from shop.order.v1.order_errors import OrderNotFound
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub

ORDER = "shop.order.v1.OrderService"
SET_STOCK = "/shop.inventory.v1.InventoryService/SetStock"
GET = pb.GetOrderRequest(order_id="order-of-user-1")
WATCH = pb.WatchOrderRequest(order_id="order-of-user-1")


@pytest.fixture(autouse=True)
def contract(monkeypatch):
    """The contract, with owners' methods whose role is staff."""
    for method in (f"/{ORDER}/GetOrder", f"/{ORDER}/WatchOrder", f"/{ORDER}/ListOrders", SET_STOCK):
        monkeypatch.setitem(RPCS, method, replace(RPCS[method], access=Access.OWNER, roles=("staff",)))


@pytest.fixture
async def client(serve):
    """svc_order, whose only order is user-1's."""

    async def get_order(request, context):
        require_owner("user-1", OrderNotFound(order_id=request.order_id))
        return pb.Order(order_id=request.order_id)

    async def watch_order(request, context):
        require_owner("user-1", OrderNotFound(order_id=request.order_id))
        for _ in range(2):
            yield pb.WatchOrderResponse(order=pb.Order(order_id=request.order_id))

    async def list_orders(request, context):
        return pb.ListOrdersResponse(orders=[pb.Order(user_id=owner_filter(request.user_id))])

    async with (
        serve(GetOrder=get_order, WatchOrder=watch_order, ListOrders=list_orders) as app,
        client_for(app.address, OrderServiceStub) as client,
    ):
        yield client


def bearer(issuer, user_id, *roles):
    return f"Bearer {issuer.token(user_id, *roles)}"


@pytest.mark.parametrize(
    ("user_id", "roles", "served"),
    [
        ("user-1", ["customer"], True),
        ("user-1", [], True),
        ("user-2", ["customer"], False),
        ("user-2", ["admin"], False),
        ("user-2", ["customer", "staff"], True),
    ],
)
async def test_a_resource_is_shown_to_its_owner_and_to_the_contracts_roles(client, issuer, user_id, roles, served):
    with as_user(bearer(issuer, user_id, *roles)):
        if served:
            assert (await client.GetOrder(GET)).order_id == "order-of-user-1"
            assert len([message async for message in client.WatchOrder(WATCH)]) == 2
        else:
            with pytest.raises(OrderNotFound):
                await client.GetOrder(GET)
            with pytest.raises(OrderNotFound):
                await anext(aiter(client.WatchOrder(WATCH)))


@pytest.mark.parametrize(
    ("user", "requested", "shown"),
    [
        (("user-1", "customer"), "", "user-1"),
        (("user-1", "customer"), "user-9", "user-1"),
        (("user-2", "staff"), "user-9", "user-9"),
        (("user-2", "staff"), "", ""),
    ],
)
async def test_a_list_shows_the_users_own_or_to_the_contracts_roles_any(client, issuer, user, requested, shown):
    with as_user(bearer(issuer, *user)):
        reply = await client.ListOrders(pb.ListOrdersRequest(user_id=requested))
    assert reply.orders[0].user_id == shown


async def test_a_role_of_another_access_shows_nothing_of_others(client, issuer, monkeypatch):
    """With ACCESS_USER the roles of the contract have no meaning."""
    monkeypatch.setitem(RPCS, f"/{ORDER}/GetOrder", replace(RPCS[f"/{ORDER}/GetOrder"], access=Access.USER))
    with as_user(bearer(issuer, "user-2", "staff")), pytest.raises(OrderNotFound):
        await client.GetOrder(GET)


@pytest.fixture
async def forgetful(serve, connect):
    """svc_order, whose handlers do not check whose order it is."""

    async def get_order(request, context):
        return pb.Order(order_id=request.order_id)

    async def watch_order(request, context):
        yield pb.WatchOrderResponse(order=pb.Order(order_id=request.order_id))

    async with serve(GetOrder=get_order, WatchOrder=watch_order) as app, connect(app.address) as call:
        yield call


@pytest.mark.parametrize("roles", [["customer"], ["staff"]])
async def test_a_handler_that_checks_no_owner_is_an_internal_error(forgetful, failure, issuer, log, roles):
    metadata = (("x-shop-caller", "edge"), ("authorization", bearer(issuer, "user-1", *roles)))
    failed = await failure(forgetful.GetOrder(GET, metadata=metadata))
    assert failed.code is grpc.StatusCode.INTERNAL
    assert failed.message.startswith("Internal error ")
    assert "does not check who owns the resource" in log.text


async def test_a_stream_that_checks_no_owner_sends_no_message(forgetful, issuer):
    metadata = (("x-shop-caller", "edge"), ("authorization", bearer(issuer, "user-1")))
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await anext(aiter(forgetful.WatchOrder(WATCH, metadata=metadata)))
    assert failed.value.code() is grpc.StatusCode.INTERNAL


async def test_a_handler_that_finds_nothing_needs_no_check(serve, issuer):
    async def get_order(request, context):
        raise OrderNotFound(order_id=request.order_id)

    async with serve(GetOrder=get_order) as app, client_for(app.address, OrderServiceStub) as client:
        with as_user(bearer(issuer, "user-1")), pytest.raises(OrderNotFound):
            await client.GetOrder(GET)


async def test_a_stored_reply_was_checked_when_it_was_made(serve, database, issuer):
    async def set_stock(request, context):
        async def change(tx):
            require_owner("user-1", OrderNotFound(order_id="x"))
            return inventory.StockLevel(etag="1")

        return await idempotent(database, request, inventory.StockLevel, change)

    request = inventory.SetStockRequest(sku="a", location_id="bkk", on_hand=1, request_id="k")
    async with (
        serve(SetStock=set_stock) as app,
        client_for(app.address, InventoryServiceStub) as client,
    ):
        with as_user(bearer(issuer, "user-1")):
            replies = [await client.SetStock(request) for _ in range(2)]
        assert replies[0] == replies[1]
        with as_user(bearer(issuer, "user-2")), pytest.raises(OrderNotFound):
            await client.SetStock(request)


async def test_a_change_that_checks_no_owner_is_not_committed(serve, connect, database, issuer, failure):
    async def set_stock(request, context):
        async def change(tx):
            await tx.execute("INSERT INTO note (id) VALUES ('written')")
            return inventory.StockLevel(etag="1")

        return await idempotent(database, request, inventory.StockLevel, change)

    request = inventory.SetStockRequest(sku="a", location_id="bkk", on_hand=1, request_id="k")
    metadata = (("x-shop-caller", "edge"), ("authorization", bearer(issuer, "user-1")))
    async with serve(SetStock=set_stock) as app, connect(app.address) as call:
        assert (await failure(call.SetStock(request, metadata=metadata))).code is grpc.StatusCode.INTERNAL
    assert await database.pool.fetchval("SELECT count(*) FROM note") == 0
