"""CancelOrderLines: stock and money follow the order once, whichever process dies in between."""

import uuid

import asyncpg
import pytest

from chassis.testing import client_for, eventually
from chassis.types.money import minor_units, money
from mesh.qa.verify.checks import read_service
from shop.delivery.v1 import shipment_service_pb2 as shipment_pb
from shop.order.v1 import cancellation_service_pb2 as cancellation_pb
from shop.order.v1 import order_service_pb2 as pb
from shop.order.v1.cancellation_service_pb2_grpc import CancellationServiceStub
from shop.order.v1.order_errors import CancelQuantityTooLarge, LinesNotCancellable, OrderNotFound, OrderWouldBeEmpty
from shop.payment.v1 import payment_service_pb2 as payment_pb
from tests.integration.svc_order.shop import buy
from tests.integration.svc_order.shop_queries import available, get, move, paid_slip, payment_of, reached, ship

COMPLETED = cancellation_pb.CANCELLATION_STATE_COMPLETED


@pytest.fixture
async def cancellations(shop):
    async with client_for(shop.addresses["svc_order"], CancellationServiceStub) as stub:
        yield stub


def cancel(order, *lines, request_id=None):
    return cancellation_pb.CancelOrderLinesRequest(
        order_id=order.order_id,
        lines=[cancellation_pb.CancelledLine(sku=sku, quantity=quantity) for sku, quantity in lines],
        message="too many",
        request_id=request_id or uuid.uuid4().hex,
    )


async def cancellations_of(shop, order):
    timeline = await shop.orders.GetOrderTimeline(pb.GetOrderTimelineRequest(order_id=order.order_id))
    return list(timeline.cancellations)


async def completed(shop, order):
    return await eventually(
        lambda: cancellations_of(shop, order), lambda found: all(one.state == COMPLETED for one in found)
    )


async def assert_invariants_hold(shop, *services):
    for service in services:
        connection = await asyncpg.connect(shop.databases[service])
        for check in read_service(service)[0]:
            if not check.eventual:
                assert await connection.fetch(check.sql) == [], check.name
        await connection.close()


async def test_cancelled_lines_release_their_stock_and_the_rest_is_shipped_and_captured(shop, cancellations, rows):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 3), ("coat", 1)))
        request = cancel(order, ("shirt", 1), ("coat", 1), request_id="c-1")
        cancelled = await cancellations.CancelOrderLines(request)
        repeated = await cancellations.CancelOrderLines(request)
        (listed,) = await completed(shop, order)
        left = await get(shop, order.order_id)
    assert repeated.cancellation_id == cancelled.cancellation_id == listed.cancellation_id
    assert [(line.sku, line.name, line.quantity) for line in listed.lines] == [
        ("shirt", "Shirt", 1),
        ("coat", "Coat", 1),
    ]
    assert (listed.message, listed.problem, listed.refund) == ("too many", "", money(0, "THB"))
    assert (await available(shop, "shirt"), await available(shop, "coat")) == (8, 10)
    assert [(line.sku, line.quantity) for line in left.lines] == [("shirt", 2)]
    amounts = [minor_units(one, "amount") for one in (order.total, listed.amount, left.total)]
    assert amounts[0] - amounts[1] == amounts[2]
    event = await rows.fetchval("SELECT count(*) FROM outbox WHERE type = 'shop.order.v1.OrderLinesCancelled'")
    assert event == 1
    shipment = await ship(shop, order.order_id)
    assert shipment.weight_grams == 1000
    await move(shop, shipment, shipment_pb.SHIPMENT_STATE_PICKED_UP)
    with shop.customer():
        await reached(shop, order.order_id, pb.ORDER_STATE_SHIPPED)
        payment = await eventually(
            lambda: payment_of(shop, order), lambda one: one.state == payment_pb.PAYMENT_STATE_CAPTURED
        )
        with pytest.raises(LinesNotCancellable):
            await cancellations.CancelOrderLines(cancel(order, ("shirt", 1)))
    assert (payment.authorized_amount, payment.captured_amount) == (order.total, left.total)
    await eventually(lambda: rows.fetchval("SELECT state FROM saga"), lambda state: state == "DONE")
    await assert_invariants_hold(shop, "svc_order", "svc_inventory", "svc_payment")


async def test_what_was_captured_already_is_refunded_and_the_order_can_still_be_shipped(
    shop, cancellations, look_at_provider, rows
):
    with shop.customer():
        order = await paid_slip(shop, look_at_provider, buy(("shirt", 3), token="tok_konbini_paid"))
        for _ in range(2):
            await cancellations.CancelOrderLines(cancel(order, ("shirt", 1)))
        found = await completed(shop, order)
        refunds = [minor_units(one.refund, "refund") for one in found]
        assert refunds == [minor_units(one.amount, "amount") for one in found]
        payment = await eventually(
            lambda: payment_of(shop, order), lambda one: minor_units(one.refunded_amount, "amount") == sum(refunds)
        )
        left = await get(shop, order.order_id)
        captured = minor_units(payment.captured_amount, "amount")
        assert captured - sum(refunds) == minor_units(left.total, "total")
        # As the process left it that died between the commit of svc_payment or svc_inventory and its own.
        await rows.execute(
            "UPDATE line_cancellation SET state = 'REQUESTED', step = 'release', next_attempt_time = now()"
        )
        await completed(shop, order)
        assert (await payment_of(shop, order)).refunded_amount == payment.refunded_amount
    assert await available(shop, "shirt") == 9
    shipment = await ship(shop, order.order_id)
    await move(shop, shipment, shipment_pb.SHIPMENT_STATE_PICKED_UP)
    with shop.customer():
        await reached(shop, order.order_id, pb.ORDER_STATE_SHIPPED)
    await eventually(lambda: rows.fetchval("SELECT state FROM saga"), lambda state: state == "DONE")
    await assert_invariants_hold(shop, "svc_order", "svc_inventory", "svc_payment")


async def test_an_order_that_is_shipped_before_its_cancelled_units_are_released_ships_the_rest_alone(
    shop, rows, cancellations
):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 2), ("coat", 1)))
    # As if no process had had the time for the job of the cancellation.
    async with rows.transaction():
        await rows.execute("DELETE FROM order_line WHERE sku = 'coat'")
        await rows.execute(
            "UPDATE orders SET cancelled_amount = total - 21400, total = 21400, subtotal = 21400, shipping_fee = 0,"
            " tax_total = 0"
        )
    await move(shop, await ship(shop, order.order_id), shipment_pb.SHIPMENT_STATE_PICKED_UP)
    await eventually(lambda: rows.fetchval("SELECT state FROM saga"), lambda state: state == "DONE")
    assert (await available(shop, "shirt"), await available(shop, "coat")) == (8, 10)
    with shop.customer():
        assert (await payment_of(shop, order)).captured_amount == money(21_400, "THB")


async def test_an_order_that_is_cancelled_as_a_whole_afterwards_holds_and_refunds_nothing_twice(
    shop, cancellations, look_at_provider, rows
):
    with shop.customer():
        order = await paid_slip(shop, look_at_provider, buy(("shirt", 3), token="tok_konbini_paid"))
        await cancellations.CancelOrderLines(cancel(order, ("shirt", 1)))
        await completed(shop, order)
        await shop.orders.CancelOrder(pb.CancelOrderRequest(order_id=order.order_id, request_id="all"))
        await reached(shop, order.order_id, pb.ORDER_STATE_CANCELLED)
        await rows.execute(
            "UPDATE line_cancellation SET state = 'REQUESTED', step = 'release', next_attempt_time = now()"
        )
        await completed(shop, order)
        payment = await eventually(
            lambda: payment_of(shop, order), lambda one: one.state == payment_pb.PAYMENT_STATE_REFUNDED
        )
    assert payment.refunded_amount == order.total
    assert await available(shop, "shirt") == 10
    await assert_invariants_hold(shop, "svc_order", "svc_inventory", "svc_payment")


async def test_only_owner_and_staff_cancel_units_that_are_there_and_some_are_left(shop, cancellations):
    with shop.customer():
        waiting = await shop.orders.CreateOrder(buy(("coat", 2), token="tok_konbini"))
        order = await shop.orders.CreateOrder(buy(("shirt", 2)))
        for request, error in (
            (cancel(order, ("shirt", 1), ("shirt", 2)), CancelQuantityTooLarge),
            (cancel(order, ("coat", 1)), CancelQuantityTooLarge),
            (cancel(order, ("shirt", 2)), OrderWouldBeEmpty),
            (cancel(waiting, ("coat", 1)), LinesNotCancellable),
        ):
            with pytest.raises(error):
                await cancellations.CancelOrderLines(request)
    with shop.customer("customer-2"), pytest.raises(OrderNotFound):
        await cancellations.CancelOrderLines(cancel(order, ("shirt", 1)))
    with shop.staff():
        await cancellations.CancelOrderLines(cancel(order, ("shirt", 1)))
    assert (await get_as_customer(shop, order)).lines[0].quantity == 1


async def get_as_customer(shop, order):
    with shop.customer():
        return await get(shop, order.order_id)
