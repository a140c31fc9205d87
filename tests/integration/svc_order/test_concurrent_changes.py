"""svc_order alone over rows that a test inserted: concurrent changes, equal times, and repeated steps."""

import uuid
from contextlib import asynccontextmanager

import grpc
import pytest

from chassis import Settings as ParticipantSettings
from chassis.testing import as_user, client_for, eventually, serving
from shop.inventory.v1.inventory_service_pb2_grpc import (
    InventoryServiceServicer,
)
from shop.order.v1 import order_service_pb2 as pb
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub
from svc_order.__main__ import compose
from svc_order.settings import Settings
from tests.integration.database_control import connected, until_blocked

NOWHERE = "127.0.0.1:1"
ORDER = """
INSERT INTO orders (order_id, user_id, state, payment_state, fulfillment_state, currency, subtotal, shipping_fee,
    tax_total, total, shipping_address, slot_id, reservation_id, payment_id, version, create_time, update_time)
VALUES ($1, 'user-1', $2, 'PAID', 'DELIVERED', 'THB', 100, 0, 0, 100, '', '', 'r-' || $1, 'p-' || $1, 1,
    '2026-01-01', '2026-01-01')"""
SAGA = """
INSERT INTO saga (saga_id, order_id, state, step, attempts, next_attempt_time, version, traceparent,
    payment_method_token, create_time, update_time)
VALUES ('saga-1', 'order-1', 'RUNNING', $1, 0, $2::text::timestamptz, 1, '', 'tok_ok', now(), now())"""
LINE = """
INSERT INTO order_line (order_id, position, sku, product_id, name, quantity, unit_price, tax_rate_basis_points, tax,
    total, weight_grams)
VALUES ('order-1', 1, 'shirt', 'p-shirt', 'Shirt', 1, 100, 0, 0, 100, 100)"""


@pytest.fixture
def event_prefix():
    """Not that of the participants, whose events are about other orders."""
    return f"{uuid.uuid4().hex[:8]}."


@pytest.fixture
async def database(fresh_database):
    async with fresh_database("svc_order") as url:
        yield url


@pytest.fixture
async def rows(database):
    async with connected(database) as connection:
        yield connection


@pytest.fixture
def orders(database, redis_url, event_prefix, issuer):
    """Serves svc_order and lends a stub of it: `async with orders() as stub`."""

    @asynccontextmanager
    async def orders(*, inventory=NOWHERE):
        settings = Settings(
            database_url=database,
            redis_url=redis_url,
            event_prefix=event_prefix,
            upstreams=f"shop.inventory.v1.InventoryService={inventory},*={NOWHERE}",
            saga_poll_seconds=0.05,
            complete_seconds=0.05,
        )
        async with (
            serving("svc_order", settings, compose, issuer) as app,
            client_for(app.address, OrderServiceStub) as stub,
        ):
            yield stub

    return orders


async def test_a_completed_order_keeps_a_concurrent_refund(orders, rows):
    await rows.execute(ORDER, "order-1", "DELIVERED")
    await rows.execute("INSERT INTO order_history VALUES ('order-1', 1, 'SHIPPED', 'DELIVERED', '', '2026-01-01', '')")
    refund = rows.transaction()
    await refund.start()
    await rows.execute("UPDATE orders SET payment_state = 'PARTIALLY_REFUNDED', version = version + 1")
    async with orders():
        await until_blocked(rows)
        await refund.commit()
        await eventually(lambda: rows.fetchval("SELECT state FROM orders"), lambda state: state == "COMPLETED")
    order = await rows.fetchrow("SELECT payment_state, version FROM orders")
    assert tuple(order) == ("PARTIALLY_REFUNDED", 3)


async def test_pages_list_each_order_once_when_all_have_the_same_create_time(orders, rows, issuer):
    made = [f"order-{number}" for number in range(7)]
    for order_id in made:
        await rows.execute(ORDER, order_id, "COMPLETED")
    listed, token = [], ""
    async with orders() as stub:
        with as_user(f"Bearer {issuer.token('user-1')}"):
            while token or not listed:
                page = await stub.ListOrders(pb.ListOrdersRequest(page_size=2, page_token=token))
                listed += [order.order_id for order in page.orders]
                token = page.next_page_token
    assert sorted(listed) == made


class UnreachableInventory(InventoryServiceServicer):
    """Remembers the keys of its requests, and answers nothing."""

    def __init__(self):
        self.keys = []

    async def ReserveStock(self, request, context):  # noqa: N802  gRPC's name
        self.keys.append(request.reservation_id)
        await context.abort(grpc.StatusCode.INTERNAL, "")


async def test_a_step_is_repeated_with_the_same_request_until_its_outcome_is_known(orders, rows, issuer):
    inventory = UnreachableInventory()

    async def compose_inventory(app, _settings):
        app.serve(inventory)

    await rows.execute(ORDER, "order-1", "PENDING")
    await rows.execute(LINE)
    await rows.execute(SAGA, "reserve_stock", "2026-01-01")
    async with (
        serving("svc_inventory", ParticipantSettings(), compose_inventory, issuer) as app,
        orders(inventory=app.address),
    ):
        await eventually(lambda: rows.fetchval("SELECT attempts FROM saga"), lambda attempts: attempts >= 3)
    assert len(inventory.keys) >= 3
    assert set(inventory.keys) == {inventory.keys[0]}
