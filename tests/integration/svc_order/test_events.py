"""Events of shipments and payments: each takes effect once, however often and in whatever order they arrive."""

import uuid
from datetime import UTC, datetime

import pytest

from chassis.events.bus import Event, owner_of
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
from tests.integration.svc_order.shop import buy
from tests.integration.svc_order.shop_queries import (
    authorization_applied,
    available,
    get,
    move,
    payment_of,
    reached,
    saga_of,
    ship,
    states_of,
)

ROAD = [
    shipment_pb.ShipmentState.Value(f"SHIPMENT_STATE_{name}")
    for name in ("PICKED_UP", "IN_TRANSIT", "OUT_FOR_DELIVERY", "DELIVERED")
]


@pytest.fixture
async def publish(redis_url, event_prefix, rows):
    """Publish an event, `times` with one id, and return once svc_order has applied it."""
    async with RedisBus.open(redis_url, event_prefix) as bus:

        async def publish(message, times=1):
            kind = EVENTS[message.DESCRIPTOR.full_name]
            event = Event(
                id=str(uuid.uuid4()),
                type=message.DESCRIPTOR.full_name,
                topic=kind.topic,
                key=getattr(message, kind.key),
                source=owner_of(kind.topic),
                time=datetime.now(UTC).isoformat(),
                payload=message.SerializeToString(),
            )
            await bus.publish([event] * times)
            await eventually(lambda: rows.fetchval("SELECT count(*) FROM inbox WHERE event_id = $1", event.id), bool)

        yield publish


@pytest.fixture
def published(rows):
    """Count the published events of orders by type."""

    async def published():
        counts = await rows.fetch("SELECT type, count(*) FROM outbox GROUP BY 1")
        return {name.removeprefix("shop.order.v1.Order"): count for name, count in counts}

    return published


def parcel(order, state):
    return delivery_events.ShipmentStatusChanged(shipment_id="shipment-1", order_id=order.order_id, to_state=state)


def captured(order):
    return payment_events.PaymentCaptured(payment_id=order.payment_id, order_id=order.order_id, amount=order.total)


async def test_duplicate_and_reordered_parcel_events_deliver_the_order_once(shop, publish, published):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
    for state in (shipment_pb.SHIPMENT_STATE_CREATED, shipment_pb.SHIPMENT_STATE_LABELLED):
        await publish(parcel(order, state))
    with shop.customer():
        assert (await get(shop, order.order_id)).fulfillment_state == pb.FULFILLMENT_STATE_ALLOCATED
    await publish(parcel(order, shipment_pb.SHIPMENT_STATE_DELIVERED), times=2)
    with shop.customer():
        delivered = await reached(shop, order.order_id, pb.ORDER_STATE_DELIVERED)
    for state in (*ROAD, shipment_pb.SHIPMENT_STATE_FAILED):
        await publish(parcel(order, state))
    with shop.customer():
        assert await get(shop, order.order_id) == delivered
        assert await states_of(shop, order.order_id) == ["PENDING", "CONFIRMED", "SHIPPED", "DELIVERED"]
    assert delivered.fulfillment_state == pb.FULFILLMENT_STATE_DELIVERED
    saga = await eventually(lambda: saga_of(shop, order.order_id), lambda saga: saga.state == saga_pb2.SAGA_STATE_DONE)
    assert {step.name: step.attempts for step in saga.steps}["capture_payment"] == 1
    assert await published() == {
        "Created": 1,
        "Confirmed": 1,
        "Shipped": 1,
        "Delivered": 1,
        "PaymentStateChanged": 2,
        "FulfillmentStateChanged": 2,
    }
    assert await available(shop, "shirt") == 9


async def test_any_first_event_of_a_departed_parcel_captures_the_payment(shop, publish):
    with shop.customer():
        for state in ROAD[:-1]:
            order = await shop.orders.CreateOrder(buy(("shirt", 1)))
            await publish(parcel(order, state))
            shipped = await reached(shop, order.order_id, pb.ORDER_STATE_SHIPPED)
            assert shipped.payment_state == pb.ORDER_PAYMENT_STATE_PAID
            assert (await payment_of(shop, order)).captured_amount == order.total


async def test_a_parcel_that_arrives_during_the_capture_leaves_the_order_delivered(shop, publish, rows):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1), token="tok_capture_slow_3000"))
        await publish(parcel(order, shipment_pb.SHIPMENT_STATE_PICKED_UP))
        filters = "SELECT true FROM saga WHERE step = 'capture_payment' AND attempts = 1"
        await eventually(lambda: rows.fetchval(filters), bool)
        await publish(parcel(order, shipment_pb.SHIPMENT_STATE_DELIVERED))
        assert (await get(shop, order.order_id)).state == pb.ORDER_STATE_CONFIRMED
        delivered = await reached(shop, order.order_id, pb.ORDER_STATE_DELIVERED)
        assert await states_of(shop, order.order_id) == ["PENDING", "CONFIRMED", "SHIPPED", "DELIVERED"]
    assert delivered.fulfillment_state == pb.FULFILLMENT_STATE_DELIVERED
    assert delivered.payment_state == pb.ORDER_PAYMENT_STATE_PAID


async def test_a_capture_event_before_the_capture_step_changes_the_order_once(shop, publish, published):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
        await publish(captured(order), times=2)
        paid = await get(shop, order.order_id)
        assert (paid.state, paid.payment_state) == (pb.ORDER_STATE_CONFIRMED, pb.ORDER_PAYMENT_STATE_PAID)
        assert int(paid.etag) == int(order.etag) + 1
        await publish(parcel(order, shipment_pb.SHIPMENT_STATE_PICKED_UP))
        await reached(shop, order.order_id, pb.ORDER_STATE_SHIPPED)
        await publish(captured(order))
        assert (await get(shop, order.order_id)).payment_state == pb.ORDER_PAYMENT_STATE_PAID
    assert (await published())["PaymentStateChanged"] == 2


async def test_refunds_are_shown_and_later_events_of_less_change_nothing(shop, publish):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
    shipment = await ship(shop, order.order_id)
    await move(shop, shipment, *ROAD)

    async def refunded(state):
        return await eventually(lambda: get(shop, order.order_id), lambda one: one.payment_state == state)

    with shop.customer():
        await reached(shop, order.order_id, pb.ORDER_STATE_DELIVERED)
    for amount, state in ((money(100, "THB"), "PARTIALLY_REFUNDED"), (None, "REFUNDED")):
        with shop.staff():
            request = payment_pb.RefundPaymentRequest(
                payment_id=order.payment_id, amount=amount, reason="torn", request_id=f"refund-{state}"
            )
            await shop.payments.RefundPayment(request)
        with shop.customer():
            whole = await refunded(pb.OrderPaymentState.Value(f"ORDER_PAYMENT_STATE_{state}"))
    await publish(
        payment_events.PaymentRefunded(
            payment_id=order.payment_id,
            order_id=order.order_id,
            state=payment_pb.PAYMENT_STATE_PARTIALLY_REFUNDED,
        )
    )
    await publish(captured(order))
    with shop.customer():
        assert await get(shop, order.order_id) == whole


async def test_an_authorization_after_the_compensation_is_voided_again(shop, publish, published, rows):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
        await authorization_applied(rows)
        request = pb.CancelOrderRequest(order_id=order.order_id, request_id="c-1")
        cancelled = await shop.orders.CancelOrder(request)
    before = await saga_of(shop, order.order_id)
    await publish(
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
    assert (await published())["Cancelled"] == 1
    assert await available(shop, "shirt") == 10


async def test_an_authorization_of_an_order_that_goes_forward_changes_nothing(shop, publish, rows):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
    version = await rows.fetchval("SELECT version FROM saga")
    await publish(
        payment_events.PaymentAuthorized(payment_id=order.payment_id, order_id=order.order_id, amount=order.total)
    )
    assert await rows.fetchval("SELECT version FROM saga WHERE step = 'await_shipment'") == version
    with shop.customer():
        assert await get(shop, order.order_id) == order


async def test_each_event_of_an_order_has_the_fields_of_its_contract(shop, publish, rows):
    with shop.customer():
        rejected = await shop.orders.CreateOrder(buy(("coat", 11)))
        order = await shop.orders.CreateOrder(buy(("shirt", 2)))
        await shop.orders.CancelOrder(pb.CancelOrderRequest(order_id=order.order_id, request_id="c-1"))
        kept = await shop.orders.CreateOrder(buy(("coat", 1)))
        await publish(parcel(kept, shipment_pb.SHIPMENT_STATE_DELIVERED))
        await reached(shop, kept.order_id, pb.ORDER_STATE_DELIVERED)

    async def published(kind, one):
        query = "SELECT payload FROM outbox WHERE type = $1 AND key = $2"
        (row,) = await rows.fetch(query, kind.DESCRIPTOR.full_name, one.order_id)
        return kind.FromString(row["payload"])

    created = await published(order_events.OrderCreated, order)
    assert (created.version, created.user_id, created.total) == (1, "customer-1", order.total)
    assert list(created.lines) == list(order.lines)
    confirmed = await published(order_events.OrderConfirmed, order)
    assert (confirmed.reservation_id, confirmed.payment_id) == (order.reservation_id, order.payment_id)
    assert (str(confirmed.version), confirmed.total) == (order.etag, order.total)
    assert (await published(order_events.OrderRejected, rejected)).reason == "INSUFFICIENT_STOCK"
    assert (await published(order_events.OrderCancelled, order)).reason == "CANCELLED_BY_CUSTOMER"
    assert (await published(order_events.OrderShipped, kept)).user_id == "customer-1"
    assert (await published(order_events.OrderDelivered, kept)).order_id == kept.order_id


async def test_a_returned_parcel_is_shown_and_a_failed_one_is_not(shop, publish):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
        await publish(parcel(order, shipment_pb.SHIPMENT_STATE_PICKED_UP))
        shipped = await reached(shop, order.order_id, pb.ORDER_STATE_SHIPPED)
        assert shipped.fulfillment_state == pb.FULFILLMENT_STATE_SHIPPED
        await publish(parcel(order, shipment_pb.SHIPMENT_STATE_FAILED))
        assert await get(shop, order.order_id) == shipped
        await publish(parcel(order, shipment_pb.SHIPMENT_STATE_RETURNED))
        assert (await get(shop, order.order_id)).fulfillment_state == pb.FULFILLMENT_STATE_RETURNED


async def test_an_order_is_completed_when_its_return_window_has_ended(shop, publish, published, rows):
    with shop.customer():
        orders = [await shop.orders.CreateOrder(buy(("shirt", 1))) for _ in range(2)]
        for order in orders:
            await publish(parcel(order, shipment_pb.SHIPMENT_STATE_DELIVERED))
            await reached(shop, order.order_id, pb.ORDER_STATE_DELIVERED)
        older, younger = orders
        for order, days in ((younger, 13), (older, 15)):
            await rows.execute(
                "UPDATE orders SET delivered_time = now() - make_interval(days => $2) WHERE order_id = $1",
                order.order_id,
                days,
            )
        completed = await reached(shop, older.order_id, pb.ORDER_STATE_COMPLETED)
        assert await states_of(shop, older.order_id) == ["PENDING", "CONFIRMED", "SHIPPED", "DELIVERED", "COMPLETED"]
        assert (await get(shop, younger.order_id)).state == pb.ORDER_STATE_DELIVERED
        watch = shop.orders.WatchOrder(pb.WatchOrderRequest(order_id=older.order_id))
        assert [message.order async for message in watch] == [completed]
    assert (await published())["Completed"] == 1
