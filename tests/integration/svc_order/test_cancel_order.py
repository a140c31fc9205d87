"""CancelOrder, during steps of the saga and concurrently with ShipOrder."""

import asyncio

import pytest

from chassis.testing import eventually
from shop.chassis.v1.chassis_errors import IdempotencyKeyReused
from shop.order.v1 import order_events_pb2 as order_events
from shop.order.v1 import order_service_pb2 as pb
from shop.order.v1 import saga_pb2
from shop.order.v1 import saga_service_pb2 as sagas_pb
from shop.order.v1.order_errors import OrderNotCancellable, OrderNotFound, OrderNotShippable
from shop.payment.v1 import payment_service_pb2 as payment_pb
from tests.integration.database_control import until_blocked
from tests.integration.svc_order.shop import buy
from tests.integration.svc_order.shop_queries import (
    available,
    events_applied,
    get,
    paying,
    payment_of,
    reached,
    saga_id,
    ship,
    states_of,
    timeline,
)


def cancel(order_id, request_id="c-1", reason=""):
    return pb.CancelOrderRequest(order_id=order_id, reason=reason, request_id=request_id)


async def test_a_cancellation_during_a_step_takes_effect_when_the_step_ends(shop, rows):
    with shop.customer():
        async with paying(shop, rows, buy(("shirt", 2), token="tok_slow_3000")) as (order_id, placing):
            cancelled = await shop.orders.CancelOrder(cancel(order_id, reason="changed my mind"))
            assert (await placing).state == pb.ORDER_STATE_CANCELLED
        payment = await payment_of(shop, cancelled)
        steps = await timeline(shop, order_id)
        assert await states_of(shop, order_id) == ["PENDING", "CANCELLED"]
    assert (cancelled.state_reason, cancelled.state_message) == ("CANCELLED_BY_CUSTOMER", "changed my mind")
    assert payment.state == payment_pb.PAYMENT_STATE_VOIDED
    assert set(steps.values()) == {saga_pb2.SAGA_STEP_STATE_COMPENSATED}
    assert "confirm_reservation" not in steps
    assert await available(shop, "shirt") == 10


async def test_a_step_is_shown_as_done_until_its_compensation_has_ended(shop, rows):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1), token="tok_void_slow_3000"))
        cancelling = asyncio.create_task(shop.orders.CancelOrder(cancel(order.order_id)))
        undoing = "SELECT true FROM saga WHERE state = 'COMPENSATING' AND attempts = 1"
        await eventually(lambda: rows.fetchval(undoing), bool)
        steps = await timeline(shop, order.order_id)
        assert (await get(shop, order.order_id)).state == pb.ORDER_STATE_CONFIRMED
        assert (await cancelling).state == pb.ORDER_STATE_CANCELLED
        undone = await timeline(shop, order.order_id)
    assert set(steps.values()) == {saga_pb2.SAGA_STEP_STATE_DONE}
    assert undone.pop("confirm_reservation") == saga_pb2.SAGA_STEP_STATE_DONE  # releasing undoes it too
    assert set(undone.values()) == {saga_pb2.SAGA_STEP_STATE_COMPENSATED}


async def test_a_cancellation_at_another_process_takes_effect_too_and_the_first_one_counts(shop, rows, another):
    async with another() as orders:
        with shop.customer():
            async with paying(shop, rows, buy(("shirt", 2), token="tok_slow_3000")) as (order_id, placing):
                assert (await orders.CancelOrder(cancel(order_id, "c-1", "first"))).state == pb.ORDER_STATE_PENDING
                assert (await orders.CancelOrder(cancel(order_id, "c-2", "second"))).state == pb.ORDER_STATE_PENDING
                assert (await placing).state == pb.ORDER_STATE_CANCELLED
            order = await get(shop, order_id)
    assert order.state_message == "first"
    assert await rows.fetchval("SELECT attempts FROM saga_step WHERE name = 'authorize_payment'") == 1
    assert await available(shop, "shirt") == 10


async def test_a_cancellation_during_a_declined_step_ends_in_a_cancelled_order(shop, rows, provider):
    with shop.customer():
        await provider(delay_ms=1500)
        async with paying(shop, rows, buy(("shirt", 2), token="tok_declined")) as (order_id, placing):
            await shop.orders.CancelOrder(cancel(order_id))
            await placing
        order = await get(shop, order_id)
        steps = await timeline(shop, order_id)
    assert (order.state, order.state_reason) == (pb.ORDER_STATE_CANCELLED, "CANCELLED_BY_CUSTOMER")
    assert steps["authorize_payment"] == saga_pb2.SAGA_STEP_STATE_REFUSED
    assert await available(shop, "shirt") == 10


async def test_a_rejected_order_is_not_cancellable_and_a_second_cancellation_changes_nothing(shop, rows):
    with shop.customer():
        rejected = await shop.orders.CreateOrder(buy(("shirt", 1), token="tok_declined"))
        with pytest.raises(OrderNotCancellable) as error:
            await shop.orders.CancelOrder(cancel(rejected.order_id))
        assert error.value.metadata["state"] == "REJECTED"
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
        await events_applied(rows, 2)  # a failed payment and an authorization
        cancelled = await shop.orders.CancelOrder(cancel(order.order_id, "c-2", "mine"))
        await events_applied(rows, 3)
        ended = await rows.fetch("SELECT saga_id, version FROM saga ORDER BY 1")
        await rows.execute("UPDATE saga SET next_attempt_time = now()")
        again = await shop.orders.CancelOrder(cancel(order.order_id, "c-3", "other words"))
        assert again == cancelled
        assert await rows.fetch("SELECT saga_id, version FROM saga ORDER BY 1") == ended
        with pytest.raises(IdempotencyKeyReused):
            await shop.orders.CancelOrder(cancel(order.order_id, "c-2", "other words"))
        with pytest.raises(OrderNotFound):
            await shop.orders.CancelOrder(cancel("order-none", "c-4"))


async def test_a_shipped_order_is_not_cancelled(shop, rows):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
    shipment = await ship(shop, order.order_id)
    with shop.customer():
        for _ in range(2):
            with pytest.raises(OrderNotCancellable):
                await shop.orders.CancelOrder(cancel(order.order_id))
        kept = await get(shop, order.order_id)
    assert (kept.state, kept.shipment_id) == (pb.ORDER_STATE_CONFIRMED, shipment.shipment_id)
    published = await rows.fetch("SELECT payload FROM outbox WHERE type LIKE '%FulfillmentStateChanged' ORDER BY id")
    changes = [order_events.OrderFulfillmentStateChanged.FromString(row["payload"]) for row in published]
    assert [(one.fulfillment_state, one.shipment_id) for one in changes] == [
        (pb.FULFILLMENT_STATE_ALLOCATED, ""),
        (pb.FULFILLMENT_STATE_ALLOCATED, shipment.shipment_id),
    ]
    assert str(changes[-1].version) == kept.etag


async def test_a_cancelled_order_or_one_that_is_not_confirmed_cannot_be_shipped(shop, rows):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
        await shop.orders.CancelOrder(cancel(order.order_id))
        with pytest.raises(OrderNotShippable):
            await ship(shop, order.order_id)
        async with paying(shop, rows, buy(("shirt", 1), token="tok_slow_3000")) as (order_id, _):
            with pytest.raises(OrderNotShippable) as error:
                await ship(shop, order_id)
            assert error.value.metadata["state"] == "PENDING"


async def test_an_order_whose_cancellation_commits_first_is_not_shipped(shop, rows):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
    async with rows.transaction():
        await rows.execute("UPDATE saga SET state = 'COMPENSATING', step = 'authorize_payment'")
        shipping = asyncio.create_task(ship(shop, order.order_id))
        await until_blocked(rows)
    with pytest.raises(OrderNotShippable):
        await shipping
    assert await rows.fetchval("SELECT shipment_id FROM orders") == ""


async def test_of_a_concurrent_shipment_and_cancellation_exactly_one_takes_effect(shop):
    with shop.customer():
        orders = await asyncio.gather(*(shop.orders.CreateOrder(buy(("shirt", 1))) for _ in range(8)))
        calls = [
            (
                shop.orders.CancelOrder(cancel(order.order_id, order.order_id)),
                ship(shop, order.order_id),
            )
            for order in orders
        ]
        races = await asyncio.gather(
            *(
                asyncio.gather(*pair[:: 1 if turn % 2 else -1], return_exceptions=True)
                for turn, pair in enumerate(calls)
            )
        )
        for order, ends in zip(orders, races, strict=True):
            (loser,) = (end for end in ends if isinstance(end, Exception))
            assert isinstance(loser, OrderNotShippable | OrderNotCancellable)
            now = await get(shop, order.order_id)
            if isinstance(loser, OrderNotShippable):
                assert (now.state, now.shipment_id) == (pb.ORDER_STATE_CANCELLED, "")
            else:
                assert (now.state, now.shipment_id) == (
                    pb.ORDER_STATE_CONFIRMED,
                    order.order_id.replace("order-", "shipment-"),
                )


async def test_an_order_that_an_operator_compensated_is_not_shipped_again(shop):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
    await ship(shop, order.order_id)
    with shop.staff():
        request = sagas_pb.CompensateSagaRequest(saga_id=saga_id(order.order_id), reason="refused", request_id="u-1")
        await shop.sagas.CompensateSaga(request)
    with pytest.raises(OrderNotShippable):
        await ship(shop, order.order_id, "another-key")
    with shop.customer():
        cancelled = await reached(shop, order.order_id, pb.ORDER_STATE_CANCELLED)
        assert (await payment_of(shop, order)).state == payment_pb.PAYMENT_STATE_VOIDED
    assert (cancelled.state_reason, cancelled.state_message) == ("COMPENSATED_BY_OPERATOR", "refused")
    with pytest.raises(OrderNotShippable):
        await ship(shop, order.order_id, "a-third-key")
