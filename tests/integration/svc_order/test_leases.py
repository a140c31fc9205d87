"""Leases: one process executes a saga at a time, and another one resumes it after a crash; no step counts twice."""

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from chassis import Database, OutcomeUnknown
from chassis.testing import client_for, eventually
from shop.delivery.v1 import shipment_service_pb2 as shipment_pb
from shop.inventory.v1 import inventory_service_pb2 as inventory_pb
from shop.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub
from shop.order.v1 import order_service_pb2 as pb
from shop.order.v1 import saga_pb2
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub
from shop.payment.v1 import payment_service_pb2 as payment_pb
from svc_order import store
from svc_order.domain import Order, OrderTotals
from svc_order.domain_saga import Saga
from tests.integration.svc_order.shop import QUICK, buy, upstreams
from tests.integration.svc_order.shop_queries import (
    available,
    move,
    paying,
    payment_of,
    reached,
    ship,
    states_of,
    timeline,
)

ATTEMPTS = "SELECT attempts FROM saga_step WHERE name = 'authorize_payment'"
STATE = "SELECT state FROM saga_step WHERE name = 'authorize_payment'"


@pytest.fixture
async def keys(issuer):
    """The address of a server that tells the issuer's keys to other processes."""

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps(await issuer.keys()).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


@pytest.fixture
def surroundings(redis_url, event_prefix, keys, repository):
    """What a process of its own needs of its environment."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([str(repository), str(repository / "gen")]),
        "REDIS_URL": redis_url,
        "EVENT_PREFIX": event_prefix,
        "JWKS_URL": keys,
    }


@pytest.fixture
def child(shop, surroundings, free_port, tmp_path):
    """Lends a process of the orders, over the shop's database, and a stub of it."""

    @asynccontextmanager
    async def child():
        address = f"127.0.0.1:{free_port()}"
        environment = {
            **surroundings,
            "LISTEN": address,
            "DATABASE_URL": shop.databases["svc_order"],
            "UPSTREAMS": upstreams(shop.addresses),
            **{name.upper(): str(value) for name, value in QUICK.items()},
        }
        command = [sys.executable, "-m", "svc_order"]
        with (tmp_path / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=log, stderr=log)
        try:
            async with client_for(address, OrderServiceStub) as orders:
                async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(60):
                    await channel.channel_ready()
                yield process, orders
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    return child


async def assert_all_is_secured_once(shop, order_id):
    """Assert that the order holds stock and payment once, and that each step of its saga is done."""
    with shop.customer():
        order = await reached(shop, order_id, pb.ORDER_STATE_CONFIRMED)
        payment = await payment_of(shop, order)
        steps = await timeline(shop, order_id)
        assert await states_of(shop, order_id) == ["PENDING", "CONFIRMED"]
    assert (payment.state, payment.authorized_amount) == (payment_pb.PAYMENT_STATE_AUTHORIZED, order.total)
    assert set(steps.values()) == {saga_pb2.SAGA_STEP_STATE_DONE}
    async with client_for(shop.addresses["svc_inventory"], InventoryServiceStub, caller="svc_order") as inventory:
        request = inventory_pb.GetReservationRequest(reservation_id=order.reservation_id)
        assert (await inventory.GetReservation(request)).state == inventory_pb.RESERVATION_STATE_CONFIRMED
    assert await available(shop, "shirt") == 9


async def test_a_step_longer_than_its_lease_stays_with_its_process(shop, rows, another):
    async with another():
        with shop.customer():
            async with paying(shop, rows, buy(("shirt", 1), token="tok_slow_3500")) as (order_id, placing):
                assert (await placing).state == pb.ORDER_STATE_CONFIRMED
    assert await rows.fetchval(ATTEMPTS) == 1
    await assert_all_is_secured_once(shop, order_id)


async def test_a_process_that_lost_its_lease_writes_nothing(shop, rows, another):
    async def overtaken():
        # As if the first process had stood still for too long; again, should it have renewed its lease.
        await rows.execute("UPDATE saga SET next_attempt_time = now() WHERE attempts = 1")
        return await rows.fetchval(ATTEMPTS)

    async with another():
        with shop.customer():
            async with paying(shop, rows, buy(("shirt", 1), token="tok_slow_3000")) as (order_id, placing):
                await eventually(overtaken, lambda attempts: attempts == 2)
                await placing
        await assert_all_is_secured_once(shop, order_id)
    assert await rows.fetchval("SELECT step FROM saga") == "await_shipment"


async def test_a_lease_that_was_lost_is_not_renewed(shop, rows):
    with shop.customer():
        await shop.orders.CreateOrder(buy(("shirt", 1)))
    query = "SELECT * FROM saga"
    saga = store.saga_from_row(await rows.fetchrow(query))
    await store.renew_saga(rows, replace(saga, version=saga.version - 1), timedelta(seconds=1))
    assert store.saga_from_row(await rows.fetchrow(query)) == saga
    await store.renew_saga(rows, saga, timedelta(seconds=1))
    assert store.saga_from_row(await rows.fetchrow(query)).next_attempt_time < saga.next_attempt_time


async def test_another_process_completes_the_saga_of_a_killed_one_and_a_repeat_returns_its_order(shop, rows, child):
    request = buy(("shirt", 1), token="tok_slow_3000")
    async with child() as (process, orders):
        with shop.customer():
            async with paying(shop, rows, request, orders) as (order_id, placing):
                process.send_signal(signal.SIGKILL)
                with pytest.raises(OutcomeUnknown):
                    await placing
            again = await shop.orders.CreateOrder(request)
    assert again.order_id == order_id
    await assert_all_is_secured_once(shop, order_id)


async def test_a_process_that_is_stopped_settles_its_step_first(shop, rows, another):
    async with another(drain_seconds=0.1) as orders:
        with shop.customer():
            async with paying(shop, rows, buy(("shirt", 1), token="tok_slow_3000"), orders) as (order_id, _):
                assert await rows.fetchval(STATE) == "RUNNING"
    assert await rows.fetchval(STATE) != "RUNNING"
    await assert_all_is_secured_once(shop, order_id)


@pytest.mark.parametrize("orders_settings", [{"saga_concurrency": 1}], ids=["one at once"])
async def test_new_orders_do_not_delay_resumed_sagas(shop, rows):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
        shipment = await ship(shop, order.order_id)
        async with paying(shop, rows, buy(("shirt", 1), token="tok_slow_6000")) as (_, placing):
            await move(shop, shipment, shipment_pb.SHIPMENT_STATE_PICKED_UP)
            await reached(shop, order.order_id, pb.ORDER_STATE_SHIPPED)
            assert not placing.done()


async def test_a_due_saga_is_claimed_after_a_transaction_that_applies_an_event_to_it(fresh_database):
    """Or the reply to CancelOrder would come before the saga is claimed."""
    now = datetime.now(UTC)
    saga = Saga(id="saga-1", order_id="order-1", next_attempt_time=now, deadline=now)
    order = Order(
        id="order-1", user_id="customer-1", totals=OrderTotals(currency="THB", lines=(), shipping_fee=1, tax_total=0),
        shipping_address=b"", slot_id="", reservation_id="", payment_id="", create_time=now, update_time=now,
    )  # fmt: skip

    async def begin(db):
        async with db.transaction() as tx:
            return await store.lock_due_saga(tx, saga.id)

    async with fresh_database("svc_order") as url, Database.open(url, connections=5) as db:
        async with db.transaction() as tx:
            await store.insert_order(tx, order, 20)
            await store.insert_saga(tx, saga, "tok_ok", now)
        async with db.transaction() as tx:
            await store.lock_saga(tx, saga.id)
            beginning = asyncio.create_task(begin(db))
            await eventually(lambda: tx.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"), bool)
        found, token, _ = await beginning
    assert (found.id, token) == ("saga-1", "tok_ok")
