"""Orders through the whole shop: replies, and what is held and released."""

import asyncio

import pytest

from chassis.testing import eventually
from chassis.types.money import money
from shop.chassis.v1.chassis_errors import IdempotencyKeyReused, InvalidRequest, TokenMissing
from shop.delivery.v1 import shipment_service_pb2 as shipment_pb
from shop.delivery.v1.delivery_errors import AddressNotServed
from shop.order.v1 import order_service_pb2 as pb
from shop.order.v1 import saga_pb2
from shop.order.v1.order_errors import (
    CurrencyMismatch,
    OrderNotCancellable,
    OrderNotFound,
    PriceChanged,
    SkuNotFound,
)
from shop.payment.v1 import payment_service_pb2 as payment_pb
from tests.integration.svc_order.shop import ADDRESS, buy
from tests.integration.svc_order.shop_queries import available, get, move, payment_of, ship, timeline


async def test_an_order_is_confirmed_in_one_call_with_stock_slot_and_payment(shop):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 2), ("coat", 1)))
        payment = await payment_of(shop, order)
        steps = await timeline(shop, order.order_id)
    assert (order.state, order.payment_state, order.fulfillment_state) == (
        pb.ORDER_STATE_CONFIRMED,
        pb.ORDER_PAYMENT_STATE_AUTHORIZED,
        pb.FULFILLMENT_STATE_ALLOCATED,
    )
    assert order.subtotal == money(128_400, "THB")
    assert (payment.state, payment.amount) == (payment_pb.PAYMENT_STATE_AUTHORIZED, order.total)
    assert await available(shop, "shirt") == 8
    done = ["reserve_stock", "book_slot", "authorize_payment", "confirm_reservation"]
    assert steps == dict.fromkeys(done, saga_pb2.SAGA_STEP_STATE_DONE)


async def test_the_price_is_the_catalogs_and_an_order_at_another_total_fails(shop):
    with shop.customer():
        preview = await shop.orders.PreviewOrder(
            pb.PreviewOrderRequest(
                lines=[pb.CartLine(sku="shirt", quantity=1)], currency_code="THB", shipping_address=ADDRESS
            )
        )
        order = await shop.orders.CreateOrder(buy(("shirt", 1), expected_total=preview.total))
        assert order.total == preview.total
        with pytest.raises(PriceChanged) as error:
            await shop.orders.CreateOrder(buy(("shirt", 1), expected_total=money(1, "THB")))
        assert error.value.metadata["expected_total"] == "0.01 THB"
        with pytest.raises(CurrencyMismatch):
            await shop.orders.CreateOrder(buy(("shirt", 1), expected_total=money(1, "JPY")))


async def test_a_repeat_returns_the_same_order_and_another_request_with_its_key_fails(shop):
    with shop.customer():
        first = await shop.orders.CreateOrder(buy(("shirt", 1), request_id="k-1"))
        again = await shop.orders.CreateOrder(buy(("shirt", 1), request_id="k-1"))
        assert again.order_id == first.order_id
        with pytest.raises(IdempotencyKeyReused):
            await shop.orders.CreateOrder(buy(("shirt", 2), request_id="k-1"))
    assert await available(shop, "shirt") == 9


async def test_twenty_concurrent_repeats_create_one_order(shop):
    with shop.customer():
        orders = await asyncio.gather(
            *(shop.orders.CreateOrder(buy(("shirt", 1), request_id="k-1")) for _ in range(20))
        )
        assert len({order.order_id for order in orders}) == 1
        await eventually(lambda: get(shop, orders[0].order_id), lambda one: one.state == pb.ORDER_STATE_CONFIRMED)
    assert await available(shop, "shirt") == 9


async def test_two_customers_may_use_the_same_key(shop):
    with shop.customer("customer-1"):
        first = await shop.orders.CreateOrder(buy(("shirt", 1), request_id="k-1"))
    with shop.customer("customer-2"):
        second = await shop.orders.CreateOrder(buy(("shirt", 1), request_id="k-1"))
    assert first.order_id != second.order_id


async def test_without_stock_the_order_is_rejected_and_holds_nothing(shop):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1), ("coat", 11)))
    assert (order.state, order.state_reason) == (pb.ORDER_STATE_REJECTED, "INSUFFICIENT_STOCK")
    assert (await available(shop, "shirt"), await available(shop, "coat")) == (10, 10)


async def test_a_declined_payment_rejects_the_order_and_releases_what_it_held(shop):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1), token="tok_declined"))
        steps = await timeline(shop, order.order_id)
    assert (order.state, order.payment_state) == (pb.ORDER_STATE_REJECTED, pb.ORDER_PAYMENT_STATE_UNPAID)
    assert order.state_reason == "PAYMENT_DECLINED"
    assert steps["reserve_stock"] == steps["book_slot"] == saga_pb2.SAGA_STEP_STATE_COMPENSATED
    assert await available(shop, "shirt") == 10


async def test_an_order_that_cannot_be_placed_writes_nothing(shop):
    with shop.customer():
        with pytest.raises(SkuNotFound):
            await shop.orders.CreateOrder(buy(("nothing", 1)))
        elsewhere = type(ADDRESS)()
        elsewhere.CopyFrom(ADDRESS)
        elsewhere.postal_code = "99999"
        with pytest.raises(AddressNotServed):
            await shop.orders.CreateOrder(buy(("shirt", 1), shipping_address=elsewhere))
        with pytest.raises(InvalidRequest):
            await shop.orders.CreateOrder(buy(("shirt", -1)))
        listed = await shop.orders.ListOrders(pb.ListOrdersRequest())
    assert not listed.orders
    with pytest.raises(TokenMissing):
        await shop.orders.CreateOrder(buy(("shirt", 1)))


async def test_an_order_of_another_user_is_not_found(shop):
    with shop.customer("customer-1"):
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
    requests = (
        (shop.orders.GetOrder, pb.GetOrderRequest(order_id=order.order_id)),
        (shop.orders.GetOrderTimeline, pb.GetOrderTimelineRequest(order_id=order.order_id)),
        (shop.orders.CancelOrder, pb.CancelOrderRequest(order_id=order.order_id, request_id="c-1")),
    )
    with shop.customer("customer-2"):
        for rpc, request in requests:
            with pytest.raises(OrderNotFound):
                await rpc(request)
        with pytest.raises(OrderNotFound):
            await anext(shop.orders.WatchOrder(pb.WatchOrderRequest(order_id=order.order_id)))
        assert not (await shop.orders.ListOrders(pb.ListOrdersRequest(user_id="customer-1"))).orders
    with shop.staff():
        assert (await get(shop, order.order_id)).user_id == "customer-1"
        assert len((await shop.orders.ListOrders(pb.ListOrdersRequest(user_id="customer-1"))).orders) == 1


async def test_a_cancelled_order_releases_its_stock_and_payment(shop):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 3)))
        request = pb.CancelOrderRequest(order_id=order.order_id, reason="changed my mind", request_id="c-1")
        cancelled = await shop.orders.CancelOrder(request)
        assert (await shop.orders.CancelOrder(request)).state == pb.ORDER_STATE_CANCELLED
        payment = await payment_of(shop, order)
    assert cancelled.state == pb.ORDER_STATE_CANCELLED
    assert (cancelled.state_reason, cancelled.state_message) == ("CANCELLED_BY_CUSTOMER", "changed my mind")
    assert payment.state == payment_pb.PAYMENT_STATE_VOIDED
    assert await available(shop, "shirt") == 10


async def test_a_cancelled_order_has_a_reason_code_and_the_words_of_the_user(shop):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
    with shop.staff():
        request = pb.CancelOrderRequest(order_id=order.order_id, reason="torn in the store", request_id="c-1")
        cancelled = await shop.orders.CancelOrder(request)
        history = await shop.orders.GetOrderTimeline(pb.GetOrderTimelineRequest(order_id=order.order_id))
    assert (cancelled.state_reason, cancelled.state_message) == ("CANCELLED_BY_STAFF", "torn in the store")
    assert [(one.reason, one.message) for one in history.transitions][-1] == ("CANCELLED_BY_STAFF", "torn in the store")


async def test_a_departed_parcel_captures_the_payment_and_its_arrival_delivers_the_order(shop):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
    shipment = await ship(shop, order.order_id)
    with shop.customer(), pytest.raises(OrderNotCancellable):
        await shop.orders.CancelOrder(pb.CancelOrderRequest(order_id=order.order_id, request_id="c-1"))
    await move(shop, shipment, shipment_pb.SHIPMENT_STATE_PICKED_UP)
    with shop.customer():
        shipped = await eventually(lambda: get(shop, order.order_id), lambda one: one.state == pb.ORDER_STATE_SHIPPED)
        payment = await payment_of(shop, order)
    assert (shipped.payment_state, shipped.shipment_id) == (pb.ORDER_PAYMENT_STATE_PAID, shipment.shipment_id)
    assert payment.captured_amount == order.total
    for state in ("IN_TRANSIT", "OUT_FOR_DELIVERY", "DELIVERED"):
        await move(shop, shipment, shipment_pb.ShipmentState.Value(f"SHIPMENT_STATE_{state}"))
    with shop.customer():
        delivered = await eventually(
            lambda: get(shop, order.order_id), lambda one: one.state == pb.ORDER_STATE_DELIVERED
        )
        steps = await eventually(lambda: timeline(shop, order.order_id), lambda steps: "fulfill_reservation" in steps)
    assert delivered.fulfillment_state == pb.FULFILLMENT_STATE_DELIVERED
    assert steps["capture_payment"] == saga_pb2.SAGA_STEP_STATE_DONE


async def test_an_order_whose_parcel_arrives_before_the_capture_is_shipped_before_it_is_delivered(shop):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1), token="tok_capture_slow_1500"))
    shipment = await ship(shop, order.order_id)
    for state in ("PICKED_UP", "IN_TRANSIT", "OUT_FOR_DELIVERY", "DELIVERED"):
        await move(shop, shipment, shipment_pb.ShipmentState.Value(f"SHIPMENT_STATE_{state}"))
    with shop.customer():
        await eventually(lambda: get(shop, order.order_id), lambda one: one.state == pb.ORDER_STATE_DELIVERED)
        published = await shop.orders.GetOrderTimeline(pb.GetOrderTimelineRequest(order_id=order.order_id))
    assert [move.to_state for move in published.transitions] == [
        pb.ORDER_STATE_PENDING,
        pb.ORDER_STATE_CONFIRMED,
        pb.ORDER_STATE_SHIPPED,
        pb.ORDER_STATE_DELIVERED,
    ]


async def test_a_watch_sends_every_state_until_the_final_one(shop):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
        watch = shop.orders.WatchOrder(pb.WatchOrderRequest(order_id=order.order_id))
        async with asyncio.timeout(60):
            assert (await anext(watch)).order.state == pb.ORDER_STATE_CONFIRMED
            await shop.orders.CancelOrder(pb.CancelOrderRequest(order_id=order.order_id, request_id="c-1"))
            published = [message.order.state async for message in watch]
    assert published[-1] == pb.ORDER_STATE_CANCELLED


async def test_a_watch_resumed_at_its_last_token_sends_nothing_twice(shop):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1), token="tok_declined"))
        watch = shop.orders.WatchOrder(pb.WatchOrderRequest(order_id=order.order_id, resume_token=order.etag))
        async with asyncio.timeout(60):
            assert [message async for message in watch] == []


async def test_orders_are_listed_newest_first_page_by_page(shop):
    with shop.customer():
        made = [(await shop.orders.CreateOrder(buy(("shirt", 1)))).order_id for _ in range(3)]
        first = await shop.orders.ListOrders(pb.ListOrdersRequest(page_size=2))
        rest = await shop.orders.ListOrders(pb.ListOrdersRequest(page_size=2, page_token=first.next_page_token))
    assert [order.order_id for order in (*first.orders, *rest.orders)] == made[::-1]
    assert rest.next_page_token == ""


async def test_a_charge_whose_answer_was_lost_is_looked_up_and_not_repeated(shop):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1), token="tok_500_then_charged"))
        order = await eventually(lambda: get(shop, order.order_id), lambda one: one.state != pb.ORDER_STATE_PENDING)
        payment = await payment_of(shop, order)
    assert order.state == pb.ORDER_STATE_CONFIRMED
    assert payment.authorized_amount == order.total


async def test_every_order_has_one_saga_and_a_history_without_gaps(shop, rows):
    with shop.customer():
        await asyncio.gather(*(shop.orders.CreateOrder(buy(("shirt", 1), token=token)) for token in TOKENS))
    assert await rows.fetchval("SELECT count(*) FROM orders LEFT JOIN saga USING (order_id)") == len(TOKENS)
    broken = await rows.fetch(
        """SELECT * FROM (
               SELECT from_state, lag(to_state, 1, '') OVER (PARTITION BY order_id ORDER BY version) AS before
               FROM order_history) moves WHERE from_state <> before"""
    )
    assert not broken
    tokens = await rows.fetch("SELECT payment_method_token FROM saga WHERE state = 'COMPENSATED'")
    assert {row[0] for row in tokens} == {""}


TOKENS = ("tok_ok", "tok_declined", "tok_ok", "tok_insufficient_funds", "tok_ok")
