"""Purchases by JSON and by gRPC, and their state after a failure."""

import asyncio

import pytest
from google.protobuf import json_format

from chassis.testing import eventually
from mesh.qa.shop_client import RequestRejected, amount, new_key, state
from shop.chassis.v1.chassis_errors import IdempotencyKeyReused
from shop.inventory.v1 import inventory_service_pb2 as inventory_pb
from shop.order.v1 import order_service_pb2 as pb
from shop.order.v1.order_errors import OrderNotFound
from shop.payment.v1 import payment_service_pb2 as payment_pb
from tests.e2e.purchases.conftest import wish


async def test_an_order_by_json_is_confirmed_with_stock_slot_and_payment(market, customer):
    sku, before = await market.new_sku(5), await market.places()
    order = await customer.front.post("/v1/orders", wish(sku, 2, slotId=market.slot["slotId"]))
    assert (state(order), state(order, "paymentState")) == ("CONFIRMED", "AUTHORIZED")
    assert amount(order["subtotal"]) == "200.00 THB"
    assert await market.available(sku) == 3
    assert await market.places() == before - 1
    payment = await customer.front.get(f"/v1/payments/{order['paymentId']}")
    assert (state(payment), payment["authorizedAmount"]) == ("AUTHORIZED", order["total"])
    timeline = await customer.front.get(f"/v1/orders/{order['orderId']}/timeline")
    assert [(step["name"], state(step), step["attempts"]) for step in timeline["steps"]] == [
        (name, "DONE", 1) for name in ("reserve_stock", "book_slot", "authorize_payment", "confirm_reservation")
    ]
    (listed,) = (await customer.front.get("/v1/orders"))["orders"]
    assert listed == order


async def test_an_order_by_grpc_through_the_ingress_is_confirmed(stubs, customer, market):
    sku = await market.new_sku(5)
    request = json_format.ParseDict(wish(sku, 2), pb.CreateOrderRequest())
    with customer.as_user():
        order = await stubs.orders.CreateOrder(request)
        assert order.state == pb.ORDER_STATE_CONFIRMED
        assert await stubs.orders.GetOrder(pb.GetOrderRequest(order_id=order.order_id)) == order
        payment = await stubs.payments.GetPayment(payment_pb.GetPaymentRequest(payment_id=order.payment_id))
        watch = stubs.orders.WatchOrder(pb.WatchOrderRequest(order_id=order.order_id))
        assert (await anext(watch)).order == order
        await watch.aclose()
    assert payment.amount == order.total
    assert (await stubs.inventory.GetStock(inventory_pb.GetStockRequest(sku=sku))).available == 3


async def test_an_order_out_of_stock_is_rejected_and_holds_nothing(market, customer):
    sku, before = await market.new_sku(1), await market.places()
    order = await customer.front.post("/v1/orders", wish(sku, 2, slotId=market.slot["slotId"]))
    assert (state(order), order["stateReason"]) == ("REJECTED", "INSUFFICIENT_STOCK")
    assert await market.available(sku) == 1
    assert await market.places() == before
    assert await market.payments(order) == []


async def test_concurrent_orders_for_the_last_units_sell_exactly_the_stock(market, newcomer):
    sku, customers = await market.new_sku(3), [await newcomer() for _ in range(4)]
    orders = await asyncio.gather(*(one.front.post("/v1/orders", wish(sku)) for one in customers for _ in range(3)))
    assert sorted(map(state, orders)) == ["CONFIRMED"] * 3 + ["REJECTED"] * 9
    assert await market.available(sku) == 0


async def test_a_declined_payment_rejects_the_order_and_releases_everything(market, customer):
    sku, before = await market.new_sku(5), await market.places()
    wanted = wish(sku, 2, slotId=market.slot["slotId"], paymentMethodToken="tok_insufficient_funds")
    order = await customer.front.post("/v1/orders", wanted)
    assert state(order) == "REJECTED"
    assert order["stateReason"] == "PAYMENT_DECLINED"
    assert state(order, "paymentState") == "UNPAID"
    assert await market.available(sku) == 5
    assert await market.places() == before
    assert await market.payments(order) == [("failed", 0)]
    assert await steps_of(customer, order) == {
        "reserve_stock": "COMPENSATED",
        "book_slot": "COMPENSATED",
        "authorize_payment": "REFUSED",
    }


async def test_an_order_cancelled_during_its_payment_holds_nothing(market, customer):
    sku = await market.new_sku(5)
    wanted = wish(sku, 2, paymentMethodToken="tok_slow_2500")
    placing = asyncio.create_task(customer.front.post("/v1/orders", wanted))
    (order,) = await eventually(lambda: orders_of(customer), bool)
    assert state(order) == "PENDING"
    await eventually(lambda: steps_of(customer, order), lambda steps: "authorize_payment" in steps)
    cancelled = await customer.front.post(f"/v1/orders/{order['orderId']}/cancel", {"requestId": new_key()})
    assert (state(cancelled), cancelled["stateReason"]) == ("CANCELLED", "CANCELLED_BY_CUSTOMER")
    assert state(await placing) == "CANCELLED"
    assert await market.available(sku) == 5
    assert await market.payments(order) == [("voided", 0)]


async def test_a_confirmed_order_can_be_cancelled_and_a_second_time_changes_nothing(market, customer):
    sku, before = await market.new_sku(5), await market.places()
    order = await customer.front.post("/v1/orders", wish(sku, 2, slotId=market.slot["slotId"]))
    path = f"/v1/orders/{order['orderId']}/cancel"
    cancelled = await customer.front.post(path, {"requestId": new_key()})
    assert state(cancelled) == "CANCELLED"
    assert await customer.front.post(path, {"requestId": new_key()}) == cancelled
    assert await market.available(sku) == 5
    assert await market.places() == before
    assert await market.payments(order) == [("voided", 0)]


async def test_a_shipped_order_is_paid_and_cannot_be_cancelled(customer, market):
    order = await customer.front.post("/v1/orders", wish(await market.new_sku(5)))
    order_id = order["orderId"]
    shipment = await market.staff.post("/v1/shipments", {"orderId": order_id, "requestId": new_key()})
    with pytest.raises(RequestRejected) as rejection:
        await customer.front.post(f"/v1/orders/{order_id}/cancel", {"requestId": new_key()})
    assert rejection.value.reason == "ORDER_NOT_CANCELLABLE"
    rider = await market.courier.get("/v1/users/me")
    assignment = {"courierId": rider["userId"], "requestId": new_key()}
    await market.staff.post(f"/v1/shipments/{shipment['shipmentId']}/assign", assignment)
    for to in ("PICKED_UP", "IN_TRANSIT", "OUT_FOR_DELIVERY", "DELIVERED"):
        move = {"state": f"SHIPMENT_STATE_{to}", "requestId": new_key()}
        await market.courier.post(f"/v1/shipments/{shipment['shipmentId']}/status", move)
    delivered = await eventually(
        lambda: customer.front.get(f"/v1/orders/{order_id}"), lambda one: state(one) == "DELIVERED"
    )
    assert state(delivered, "paymentState") == "PAID"
    assert await market.payments(order) == [("captured", 100 * int(order["total"]["units"]))]


async def test_a_repeated_request_gets_the_first_reply_by_json_and_grpc(market, stubs, customer):
    sku = await market.new_sku(20)
    wanted = wish(sku, 2)
    first = await customer.front.post("/v1/orders", wanted)
    assert await customer.front.post("/v1/orders", wanted) == first
    with customer.as_user():
        by_grpc = await stubs.orders.CreateOrder(json_format.ParseDict(wanted, pb.CreateOrderRequest()))
    assert by_grpc.order_id == first["orderId"]
    assert await market.available(sku) == 18


async def test_a_key_of_another_request_is_rejected_by_json_and_grpc(stubs, customer, market):
    wanted = wish(await market.new_sku(20), 2)
    first = await customer.front.post("/v1/orders", wanted)
    other = wanted | {"lines": [wanted["lines"][0] | {"quantity": 3}]}
    with pytest.raises(RequestRejected) as rejection:
        await customer.front.post("/v1/orders", other)
    assert (rejection.value.status, rejection.value.reason) == (422, "IDEMPOTENCY_KEY_REUSED")
    with customer.as_user(), pytest.raises(IdempotencyKeyReused):
        await stubs.orders.CreateOrder(json_format.ParseDict(other, pb.CreateOrderRequest()))
    assert await orders_of(customer) == [first]


async def test_one_request_sent_ten_times_concurrently_creates_one_order(market, customer):
    sku = await market.new_sku(20)
    wanted = wish(sku, 2)
    replies = await asyncio.gather(
        *(customer.front.post("/v1/orders", wanted) for _ in range(10)), return_exceptions=True
    )
    ids = {reply["orderId"] for reply in replies if isinstance(reply, dict)}
    assert len(ids) == 1
    assert len(await orders_of(customer)) == 1
    assert await market.available(sku) == 18


async def test_resources_of_another_user_are_not_found(stubs, customer, newcomer, market):
    order = await customer.front.post("/v1/orders", wish(await market.new_sku(5)))
    stranger, order_id = await newcomer(), order["orderId"]
    attempts = (
        stranger.front.get(f"/v1/orders/{order_id}"),
        stranger.front.get(f"/v1/orders/{order_id}/timeline"),
        stranger.front.post(f"/v1/orders/{order_id}/cancel", {"requestId": new_key()}),
        stranger.front.get(f"/v1/payments/{order['paymentId']}"),
    )
    for attempt in attempts:
        with pytest.raises(RequestRejected) as rejection:
            await attempt
        assert rejection.value.status == 404
        assert rejection.value.reason in ("ORDER_NOT_FOUND", "PAYMENT_NOT_FOUND")
    with stranger.as_user(), pytest.raises(OrderNotFound):
        await stubs.orders.GetOrder(pb.GetOrderRequest(order_id=order_id))
    assert (await customer.front.get(f"/v1/orders/{order_id}")) == order


async def orders_of(customer):
    return (await customer.front.get("/v1/orders"))["orders"]


async def steps_of(customer, order):
    timeline = await customer.front.get(f"/v1/orders/{order['orderId']}/timeline")
    return {step["name"]: state(step) for step in timeline["steps"]}
