"""Access: every access of the contract, every caller, every kind of token; and no secret is logged."""

import time

import pytest

from chassis import require_owner
from chassis.context import current_call, current_user
from chassis.testing import Issuer, as_user, client_for
from shop.chassis.v1.chassis_errors import CallerDenied, InvalidRequest, RoleMissing, TokenInvalid, TokenMissing
from shop.contract import RPCS, Access
from shop.inventory.v1 import inventory_service_pb2 as inventory
from shop.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub
from shop.order.v1 import order_service_pb2 as order
from shop.order.v1.order_errors import OrderNotFound
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub
from shop.user.v1 import user_service_pb2 as user
from shop.user.v1.user_errors import EmailTaken
from shop.user.v1.user_service_pb2_grpc import UserServiceStub

INVENTORY, ORDER, USER = "shop.inventory.v1.InventoryService", "shop.order.v1.OrderService", "shop.user.v1.UserService"
CANARY = "canary-9d41"

#: One RPC of each access, a request that it takes, and a caller that it admits.
RPC = {
    Access.PUBLIC: (INVENTORY, InventoryServiceStub, "GetStock", inventory.GetStockRequest(sku="a"), "edge"),
    Access.USER: (USER, UserServiceStub, "GetMe", user.GetMeRequest(), "edge"),
    Access.OWNER: (ORDER, OrderServiceStub, "GetOrder", order.GetOrderRequest(order_id="o-1"), "edge"),
    Access.ROLES: (
        INVENTORY,
        InventoryServiceStub,
        "ListStockLevels",
        inventory.ListStockLevelsRequest(sku="a"),
        "edge",
    ),
    Access.WORKLOAD: (
        INVENTORY,
        InventoryServiceStub,
        "GetReservation",
        inventory.GetReservationRequest(reservation_id="r-1"),
        "svc_order",
    ),
}

ANYONE = dict.fromkeys(["none", "customer", "staff", "expired", "forged", "garbage", "basic", "empty"], "served")
ANY_USER = {
    "none": TokenMissing,
    "customer": "served",
    "staff": "served",
    **dict.fromkeys(["expired", "forged", "garbage", "basic", "empty"], TokenInvalid),
}
#: The result of a call, by access and by token.
EXPECTED = {
    Access.PUBLIC: ANYONE,
    Access.WORKLOAD: ANYONE,
    Access.USER: ANY_USER,
    Access.OWNER: ANY_USER,
    Access.ROLES: {
        "none": TokenMissing,
        "customer": RoleMissing,
        "staff": "served",
        **dict.fromkeys(["expired", "forged", "garbage", "basic", "empty"], TokenInvalid),
    },
}


def authorization(issuer, kind):
    return {
        "none": lambda: "",
        "customer": lambda: f"Bearer {issuer.token('user-1', 'customer')}",
        "staff": lambda: f"bearer  {issuer.token('user-1', 'staff')}",
        "expired": lambda: f"Bearer {issuer.token('user-1', 'staff', exp=int(time.time()) - 60)}",
        "forged": lambda: f"Bearer {Issuer().token('user-1', 'staff')}",
        "garbage": lambda: "Bearer ../../etc/passwd",
        "basic": lambda: f"Basic {issuer.token('user-1', 'staff')}",
        "empty": lambda: "Bearer ",
    }[kind]()


@pytest.fixture
def seen():
    """The users that handlers were called for."""
    return []


@pytest.fixture
async def app(serve, seen):
    def handler(reply):
        async def handle(request, context):
            seen.append(current_call().user)
            if RPCS[current_call().method].access is Access.OWNER:
                require_owner("user-1", OrderNotFound(order_id="o-1"))
            return reply

        return handle

    async with serve(
        GetStock=handler(inventory.Stock()),
        ListStockLevels=handler(inventory.ListStockLevelsResponse()),
        GetReservation=handler(inventory.Reservation()),
        GetOrder=handler(order.Order()),
        GetMe=handler(user.User()),
    ) as app:
        yield app


@pytest.mark.parametrize("token", ANYONE)
@pytest.mark.parametrize("access", RPC)
async def test_the_token_decides_as_the_contract_says(app, seen, issuer, access, token):
    service, stub, rpc, request, caller = RPC[access]
    assert RPCS[f"/{service}/{rpc}"].access is access
    expected = EXPECTED[access][token]
    async with client_for(app.address, stub, caller=caller) as client:
        with as_user(authorization(issuer, token)):
            if expected == "served":
                await getattr(client, rpc)(request)
            else:
                with pytest.raises(expected):
                    await getattr(client, rpc)(request)
    assert len(seen) == (expected == "served")
    if expected == "served" and access is not Access.WORKLOAD and token in ("customer", "staff"):
        assert (seen[0].id, seen[0].roles) == ("user-1", {token})
    elif seen:
        assert seen == [None]


@pytest.mark.parametrize("caller", ["edge", "svc_order", "svc_catalog", "svc_user", "", "stranger", "EDGE"])
@pytest.mark.parametrize("access", RPC)
async def test_the_caller_decides_before_any_token(app, seen, issuer, access, caller):
    service, stub, rpc, request, _ = RPC[access]
    allowed = caller in RPCS[f"/{service}/{rpc}"].callers
    async with client_for(app.address, stub, caller=caller) as client:
        with as_user(authorization(issuer, "staff")):
            if allowed:
                await getattr(client, rpc)(request)
            else:
                with pytest.raises(CallerDenied) as denied:
                    await getattr(client, rpc)(request)
                assert denied.value.metadata["caller"] == (caller or "unknown")
    assert len(seen) == allowed


async def test_request_is_not_decoded_before_its_caller_is_admitted(app):
    async with client_for(app.address, InventoryServiceStub, caller="stranger") as client:
        with pytest.raises(CallerDenied):
            await client.GetStock(inventory.GetStockRequest(sku="?"))
    async with client_for(app.address, InventoryServiceStub) as client:
        with pytest.raises(InvalidRequest):
            await client.GetStock(inventory.GetStockRequest(sku="?"))


async def test_access_to_a_stream_is_checked_like_any_other_call(serve):
    async def watch(request, context):
        yield order.WatchOrderResponse(resume_token=current_user().id)

    async with serve(WatchOrder=watch) as app, client_for(app.address, OrderServiceStub) as client:
        with pytest.raises(TokenMissing):
            await anext(client.WatchOrder(order.WatchOrderRequest(order_id="o-1")))


def test_current_user_outside_of_a_call_raises():
    with pytest.raises(LookupError):
        current_user()


async def test_no_secret_of_a_request_or_token_is_in_the_log_at_any_level(serve, connect, failure, issuer, log):
    """With the request served, rejected, and failing, on a service that logs everything."""
    outcomes = iter([None, EmailTaken(), ValueError("unexpected")])

    async def register(request, context):
        if error := next(outcomes):
            raise error
        return user.User(email=f"{CANARY}@example.com")

    request = user.RegisterRequest(email=f"{CANARY}@example.com", password=CANARY * 3, request_id="k-1")
    token = issuer.token(CANARY, email=CANARY)
    metadata = (("x-shop-caller", "edge"), ("authorization", f"Bearer {token}"))
    async with serve(Register=register) as app, connect(app.address) as call:
        await call.Register(request, metadata=metadata)
        await failure(call.Register(request, metadata=metadata))
        await failure(call.Register(request, metadata=metadata))
        request.password = CANARY[:1]
        await failure(call.Register(request, metadata=metadata))
    codes = [line["code"] for line in log.calls()]
    assert codes == ["OK", "ALREADY_EXISTS", "INTERNAL", "INVALID_ARGUMENT"]
    assert all(line["request"]["password"] == "***" for line in log.calls())
    assert token not in log.text
    assert token.split(".")[1] not in log.text
    without_user = "".join(line for line in log.text.splitlines()).replace(f'"user": "{CANARY}"', "")
    assert CANARY not in without_user
