"""What the orders learn from the events of others: once each, however often and in whatever order they come."""

import uuid
from datetime import UTC, datetime

import pytest

from chassis.events.bus import Event
from chassis.events.redis_bus import RedisBus
from chassis.testing import eventually
from chassis.types.money import money
from shop.delivery.v1 import delivery_events_pb2 as delivery_events
from shop.delivery.v1 import shipment_service_pb2 as shipment_pb
from shop.order.v1 import order_events_pb2 as order_events
from shop.order.v1 import order_service_pb2 as pb
from shop.order.v1 import saga_pb2
from shop.payment.v1 import payment_events_pb2 as payment_events
from shop.payment.v1 import payment_service_pb2 as payment_pb
from shop.topics import EVENTS
from tests.integration.svc_order.conftest import buy
from tests.integration.svc_order.shop_queries import (
    available,
    get,
    move,
    payment_of,
    promise_heard,
    reaches,
    saga_of,
    ship,
    states_of,
)

ROAD = [
    shipment_pb.ShipmentState.Value(f"SHIPMENT_STATE_{name}")
    for name in ("PICKED_UP", "IN_TRANSIT", "OUT_FOR_DELIVERY", "DELIVERED")
]


@pytest.fixture
async def tell(redis_url, event_prefix, rows):
    """Publishes an event, `times` under one id, and returns once the orders have taken it."""
    async with RedisBus.open(redis_url, event_prefix) as bus:

        async def tell(message, times=1):
            kind = EVENTS[message.DESCRIPTOR.full_name]
            event = Event(
                id=str(uuid.uuid4()),
                type=message.DESCRIPTOR.full_name,
                topic=kind.topic,
                key=getattr(message, kind.key),
                source="test",
                time=datetime.now(UTC).isoformat(),
                payload=message.SerializeToString(),
            )
            await bus.publish([event] * times)
            await eventually(lambda: rows.fetchval("SELECT count(*) FROM inbox WHERE event_id = $1", event.id), bool)

        yield tell


@pytest.fixture
def told(rows):
    """Returns how often the orders told of each kind of change."""

    async def told():
        counts = await rows.fetch("SELECT type, count(*) FROM outbox GROUP BY 1")
        return {name.removeprefix("shop.order.v1.Order"): count for name, count in counts}

    return told


def parcel(order, state):
    return delivery_events.ShipmentStatusChanged(shipment_id="shipment-1", order_id=order.order_id, to_state=state)


def captured(order):
    return payment_events.PaymentCaptured(payment_id=order.payment_id, order_id=order.order_id, amount=order.total)


async def test_a_parcel_whose_news_come_twice_and_in_the_wrong_order_arrives_once(shop, tell, told):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
    for state in (shipment_pb.SHIPMENT_STATE_CREATED, shipment_pb.SHIPMENT_STATE_LABELLED):
        await tell(parcel(order, state))
    with shop.customer():
        assert (await get(shop, order.order_id)).fulfillment_state == pb.FULFILLMENT_STATE_ALLOCATED
    await tell(parcel(order, shipment_pb.SHIPMENT_STATE_DELIVERED), times=2)
    with shop.customer():
        delivered = await reaches(shop, order.order_id, pb.ORDER_STATE_DELIVERED)
    for state in (*ROAD, shipment_pb.SHIPMENT_STATE_FAILED):
        await tell(parcel(order, state))
    with shop.customer():
        assert await get(shop, order.order_id) == delivered
        assert await states_of(shop, order.order_id) == ["PENDING", "CONFIRMED", "SHIPPED", "DELIVERED"]
    assert delivered.fulfillment_state == pb.FULFILLMENT_STATE_DELIVERED
    saga = await eventually(lambda: saga_of(shop, order.order_id), lambda saga: saga.state == saga_pb2.SAGA_STATE_DONE)
    assert {step.name: step.attempts for step in saga.steps}["capture_payment"] == 1
    assert await told() == {
        "Created": 1,
        "Confirmed": 1,
        "Shipped": 1,
        "Delivered": 1,
        "PaymentStateChanged": 2,
        "FulfillmentStateChanged": 2,
    }
    assert await available(shop, "shirt") == 9


async def test_whatever_is_heard_first_of_a_parcel_on_its_way_asks_for_the_money(shop, tell):
    with shop.customer():
        for state in ROAD[:-1]:
            order = await shop.orders.CreateOrder(buy(("shirt", 1)))
            await tell(parcel(order, state))
            shipped = await reaches(shop, order.order_id, pb.ORDER_STATE_SHIPPED)
            assert shipped.payment_state == pb.ORDER_PAYMENT_STATE_PAID
            assert (await payment_of(shop, order)).captured_amount == order.total


async def test_a_parcel_that_arrives_while_the_money_is_asked_for_stays_arrived(shop, tell, rows):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1), token="tok_capture_slow_3000"))
        await tell(parcel(order, shipment_pb.SHIPMENT_STATE_PICKED_UP))
        asked = "SELECT true FROM saga WHERE step = 'capture_payment' AND attempts = 1"
        await eventually(lambda: rows.fetchval(asked), bool)
        await tell(parcel(order, shipment_pb.SHIPMENT_STATE_DELIVERED))
        assert (await get(shop, order.order_id)).state == pb.ORDER_STATE_CONFIRMED
        delivered = await reaches(shop, order.order_id, pb.ORDER_STATE_DELIVERED)
        assert await states_of(shop, order.order_id) == ["PENDING", "CONFIRMED", "SHIPPED", "DELIVERED"]
    assert delivered.fulfillment_state == pb.FULFILLMENT_STATE_DELIVERED
    assert delivered.payment_state == pb.ORDER_PAYMENT_STATE_PAID


async def test_news_of_the_money_that_overtake_its_own_step_are_told_once(shop, tell, told):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
        await tell(captured(order), times=2)
        paid = await get(shop, order.order_id)
        assert (paid.state, paid.payment_state) == (pb.ORDER_STATE_CONFIRMED, pb.ORDER_PAYMENT_STATE_PAID)
        assert int(paid.etag) == int(order.etag) + 1
        await tell(parcel(order, shipment_pb.SHIPMENT_STATE_PICKED_UP))
        await reaches(shop, order.order_id, pb.ORDER_STATE_SHIPPED)
        await tell(captured(order))
        assert (await get(shop, order.order_id)).payment_state == pb.ORDER_PAYMENT_STATE_PAID
    assert (await told())["PaymentStateChanged"] == 2


async def test_refunds_show_how_much_was_given_back_and_never_less_again(shop, tell):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
    shipment = await ship(shop, order.order_id)
    await move(shop, shipment, *ROAD)

    async def refunded(state):
        return await eventually(lambda: get(shop, order.order_id), lambda one: one.payment_state == state)

    with shop.customer():
        await reaches(shop, order.order_id, pb.ORDER_STATE_DELIVERED)
    for amount, state in ((money(100, "THB"), "PARTIALLY_REFUNDED"), (None, "REFUNDED")):
        with shop.staff():
            request = payment_pb.RefundPaymentRequest(
                payment_id=order.payment_id, amount=amount, reason="torn", request_id=f"refund-{state}"
            )
            await shop.payments.RefundPayment(request)
        with shop.customer():
            whole = await refunded(pb.OrderPaymentState.Value(f"ORDER_PAYMENT_STATE_{state}"))
    await tell(
        payment_events.PaymentRefunded(
            payment_id=order.payment_id,
            order_id=order.order_id,
            state=payment_pb.PAYMENT_STATE_PARTIALLY_REFUNDED,
        )
    )
    await tell(captured(order))
    with shop.customer():
        assert await get(shop, order.order_id) == whole


async def test_a_promise_that_is_heard_of_after_the_order_was_given_up_is_voided_again(shop, tell, told, rows):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
        await promise_heard(rows)
        request = pb.CancelOrderRequest(order_id=order.order_id, request_id="c-1")
        cancelled = await shop.orders.CancelOrder(request)
    before = await saga_of(shop, order.order_id)
    await tell(
        payment_events.PaymentAuthorized(payment_id=order.payment_id, order_id=order.order_id, amount=order.total)
    )
    after = await eventually(
        lambda: saga_of(shop, order.order_id),
        lambda saga: saga.state == saga_pb2.SAGA_STATE_COMPENSATED and saga.update_time != before.update_time,
    )
    again = {step.name: step.end_time.ToNanoseconds() for step in after.steps}
    first = {step.name: step.end_time.ToNanoseconds() for step in before.steps}
    assert {name for name in again if again[name] > first[name]} == {
        "authorize_payment",
        "book_slot",
        "reserve_stock",
    }
    with shop.customer():
        assert await get(shop, order.order_id) == cancelled
        assert (await payment_of(shop, order)).state == payment_pb.PAYMENT_STATE_VOIDED
    assert (await told())["Cancelled"] == 1
    assert await available(shop, "shirt") == 10


async def test_a_promise_to_an_order_that_stands_changes_nothing(shop, tell, rows):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
    version = await rows.fetchval("SELECT version FROM saga")
    await tell(
        payment_events.PaymentAuthorized(payment_id=order.payment_id, order_id=order.order_id, amount=order.total)
    )
    assert await rows.fetchval("SELECT version FROM saga WHERE step = 'await_shipment'") == version
    with shop.customer():
        assert await get(shop, order.order_id) == order


async def test_what_is_told_of_an_order_says_what_others_need_to_know(shop, tell, rows):
    with shop.customer():
        rejected = await shop.orders.CreateOrder(buy(("coat", 11)))
        order = await shop.orders.CreateOrder(buy(("shirt", 2)))
        await shop.orders.CancelOrder(pb.CancelOrderRequest(order_id=order.order_id, request_id="c-1"))
        kept = await shop.orders.CreateOrder(buy(("coat", 1)))
        await tell(parcel(kept, shipment_pb.SHIPMENT_STATE_DELIVERED))
        await reaches(shop, kept.order_id, pb.ORDER_STATE_DELIVERED)

    async def told(kind, one):
        query = "SELECT payload FROM outbox WHERE type = $1 AND key = $2"
        (row,) = await rows.fetch(query, kind.DESCRIPTOR.full_name, one.order_id)
        return kind.FromString(row["payload"])

    created = await told(order_events.OrderCreated, order)
    assert (created.version, created.user_id, created.total) == (1, "customer-1", order.total)
    assert list(created.lines) == list(order.lines)
    confirmed = await told(order_events.OrderConfirmed, order)
    assert (confirmed.reservation_id, confirmed.payment_id) == (order.reservation_id, order.payment_id)
    assert (str(confirmed.version), confirmed.total) == (order.etag, order.total)
    assert (await told(order_events.OrderRejected, rejected)).reason == "INSUFFICIENT_STOCK"
    assert (await told(order_events.OrderCancelled, order)).reason == "CANCELLED_BY_CUSTOMER"
    assert (await told(order_events.OrderShipped, kept)).user_id == "customer-1"
    assert (await told(order_events.OrderDelivered, kept)).order_id == kept.order_id


async def test_a_parcel_that_came_back_is_shown_and_one_in_trouble_is_not(shop, tell):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
        await tell(parcel(order, shipment_pb.SHIPMENT_STATE_PICKED_UP))
        shipped = await reaches(shop, order.order_id, pb.ORDER_STATE_SHIPPED)
        assert shipped.fulfillment_state == pb.FULFILLMENT_STATE_SHIPPED
        await tell(parcel(order, shipment_pb.SHIPMENT_STATE_FAILED))
        assert await get(shop, order.order_id) == shipped
        await tell(parcel(order, shipment_pb.SHIPMENT_STATE_RETURNED))
        assert (await get(shop, order.order_id)).fulfillment_state == pb.FULFILLMENT_STATE_RETURNED


async def test_an_order_is_completed_when_its_time_to_be_given_back_is_over(shop, tell, told, rows):
    with shop.customer():
        orders = [await shop.orders.CreateOrder(buy(("shirt", 1))) for _ in range(2)]
        for order in orders:
            await tell(parcel(order, shipment_pb.SHIPMENT_STATE_DELIVERED))
            await reaches(shop, order.order_id, pb.ORDER_STATE_DELIVERED)
        older, younger = orders
        for order, days in ((younger, 13), (older, 15)):
            await rows.execute(
                "UPDATE order_history SET create_time = now() - make_interval(days => $2)"
                " WHERE order_id = $1 AND to_state = 'DELIVERED'",
                order.order_id,
                days,
            )
        completed = await reaches(shop, older.order_id, pb.ORDER_STATE_COMPLETED)
        assert await states_of(shop, older.order_id) == ["PENDING", "CONFIRMED", "SHIPPED", "DELIVERED", "COMPLETED"]
        assert (await get(shop, younger.order_id)).state == pb.ORDER_STATE_DELIVERED
        watch = shop.orders.WatchOrder(pb.WatchOrderRequest(order_id=older.order_id))
        assert [message.order async for message in watch] == [completed]
    assert (await told())["Completed"] == 1
