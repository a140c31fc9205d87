"""The generated Python client against the running shop, through its ingress, as an internal program would use it."""

import asyncio
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from shop.catalog.v1.catalog_errors import ProductNotFound
from shop.catalog.v1.catalog_service_pb2 import Variant
from shop.channel import OutcomeUnknown
from shop.chassis.v1.chassis_errors import IdempotencyKeyReused, InvalidRequest, RoleMissing, TokenMissing
from shop.client import ShopClient
from shop.contract import RPCS
from shop.order.v1.order_errors import OrderNotFound
from shop.order.v1.order_service_pb2 import CartLine, OrderState
from shop.type.v1.address_pb2 import Address
from tests.e2e.browser.conftest import Shop
from tests.e2e.stacks import until

PASSWORD = "correct horse battery"
ADDRESS = Address(recipient="Ada", line1="1 High Street", city="Bangkok", postal_code="10110", country_code="TH")


@pytest_asyncio.fixture
async def client(shop: Shop) -> AsyncIterator[ShopClient]:
    """A new customer, signed in."""
    email = f"{uuid.uuid4().hex}@example.com"
    async with ShopClient(shop.grpc) as client:
        await client.users.register(email=email, password=PASSWORD)
        client.token = (await client.auth.login(email=email, password=PASSWORD)).access_token
        yield client


async def on_sale(client: ShopClient) -> Variant:
    page = await client.catalog.list_products(page_size=1)
    return page.products[0].variants[0]


async def buy(client: ShopClient, **more: str):
    variant = await on_sale(client)
    return await client.orders.create_order(
        lines=[CartLine(sku=variant.sku, quantity=1)],
        currency_code=variant.price.currency_code,
        shipping_address=ADDRESS,
        payment_method_token="tok_ok",
        **more,
    )


async def test_a_program_orders_watches_and_cancels(client: ShopClient) -> None:
    order = await buy(client)
    states = []
    async for change in client.orders.watch_order(order_id=order.order_id):
        states.append(change.order.state)
        if change.order.state == OrderState.ORDER_STATE_CONFIRMED:
            await client.orders.cancel_order(order_id=order.order_id)

    assert states[-1] == OrderState.ORDER_STATE_CANCELLED
    assert (await client.orders.get_order(order_id=order.order_id)).state_reason == "CANCELLED_BY_CUSTOMER"


async def test_errors_are_raised_as_their_classes(client: ShopClient) -> None:
    with pytest.raises(ProductNotFound) as missing:
        await client.catalog.get_product(product_id="nothing")
    assert missing.value.metadata == {"product_id": "nothing"}
    with pytest.raises(OrderNotFound):
        await client.orders.get_order(order_id="nothing")
    with pytest.raises(InvalidRequest):
        await client.orders.create_order(
            lines=[], currency_code="x", shipping_address=ADDRESS, payment_method_token="t"
        )
    with pytest.raises(RoleMissing):
        await client.sagas.list_sagas()


async def test_without_a_token_only_public_calls_are_answered(shop: Shop) -> None:
    async with ShopClient(shop.grpc) as client:
        assert (await client.catalog.list_products(page_size=1)).products
        with pytest.raises(TokenMissing):
            await client.orders.list_orders()


async def test_the_token_can_be_a_function_that_is_called_for_each_call(shop: Shop, client: ShopClient) -> None:
    tokens = iter(["", client.token])
    async with ShopClient(shop.grpc, token=lambda: next(tokens)) as other:
        with pytest.raises(TokenMissing):
            await other.users.get_me()
        assert (await other.users.get_me()).user_id


async def test_a_call_repeated_with_its_key_returns_the_same_order(client: ShopClient) -> None:
    first = await buy(client, request_id="the-same-key")
    again = await buy(client, request_id="the-same-key")
    other = await buy(client)

    assert first.order_id == again.order_id
    assert other.order_id != first.order_id
    with pytest.raises(IdempotencyKeyReused):
        await buy(client, request_id="the-same-key", slot_id="another")


async def test_the_callers_timeout_can_be_shorter_than_the_contracts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections, and never says a word
        async with ShopClient(f"127.0.0.1:{silent.getsockname()[1]}") as client:
            began = time.monotonic()
            with pytest.raises(OutcomeUnknown) as late:
                await client.orders.cancel_order(order_id="any", timeout=0.3)

    assert late.value.code.name == "DEADLINE_EXCEEDED"
    assert late.value.method == "/shop.order.v1.OrderService/CancelOrder"
    assert time.monotonic() - began < (RPCS[late.value.method].timeout or 0)


async def test_a_watch_is_resumed_after_a_restart_of_the_service(client: ShopClient, shop: Shop) -> None:
    order = await buy(client)
    states: asyncio.Queue[int] = asyncio.Queue()

    async def watch() -> None:
        async for change in client.orders.watch_order(order_id=order.order_id):
            states.put_nowait(change.order.state)

    async with asyncio.timeout(120):
        watching = asyncio.create_task(watch())
        while await states.get() != OrderState.ORDER_STATE_CONFIRMED:
            pass
        restarted(shop, "svc_order")  # while nothing else runs here, or a slow restart would wear out the watch
        await _repeated(client, order.order_id)
        await watching

    seen = [states.get_nowait() for _ in range(states.qsize())]
    assert seen[-1] == OrderState.ORDER_STATE_CANCELLED


def restarted(shop: Shop, name: str) -> None:
    before = shop.cli.process(name)
    shop.cli.kill(name)
    until(lambda: shop.cli.process(name).restarts > before.restarts)
    until(lambda: shop.cli.process(name).state == "ready")


async def _repeated(client: ShopClient, order_id: str) -> None:
    """A cancel may meet the service before it serves; repeated by its key, it is harmless."""
    while True:
        try:
            await client.orders.cancel_order(order_id=order_id, request_id="cancel-once")
        except OutcomeUnknown:
            await asyncio.sleep(0.05)
        else:
            return


def test_the_client_needs_nothing_of_the_chassis() -> None:
    code = "import sys, shop.client; print(*{name.partition('.')[0] for name in sys.modules})"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert {"grpc", "google", "shop"} <= set(done.stdout.split())
    assert not {"chassis", "mesh", "asyncpg", "redis", "opentelemetry"} & set(done.stdout.split())
