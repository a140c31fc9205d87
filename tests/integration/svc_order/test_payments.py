"""What the payment of an order does to it: declines, expiry, voids, disputes."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from chassis.events.bus import Event
from chassis.events.redis_bus import RedisBus
from chassis.testing import client_for, eventually
from shop.delivery.v1 import shipment_service_pb2 as shipment_pb
from shop.inventory.v1 import inventory_service_pb2 as inventory_pb
from shop.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub
from shop.order.v1 import order_service_pb2 as pb
from shop.order.v1 import saga_pb2
from shop.order.v1 import saga_service_pb2 as sagas_pb
from shop.order.v1.order_errors import OrderNotFound, OrderNotPayable, OrderNotShippable, TooManyOpenOrders
from shop.payment.v1 import payment_events_pb2 as payment_events
from shop.payment.v1 import payment_service_pb2 as payment_pb
from shop.topics import EVENTS
from tests.integration.svc_order.shop import buy
from tests.integration.svc_order.shop_queries import (
    available,
    get,
    payment_of,
    reached,
    saga_id,
    saga_of,
    ship,
    states_of,
)


@pytest.fixture
async def publish(redis_url, event_prefix, rows):
    """Publish an event of svc_payment, and return once svc_order has applied it."""
    async with RedisBus.open(redis_url, event_prefix) as bus:

        async def publish(message):
            kind = EVENTS[message.DESCRIPTOR.full_name]
            event = Event(
                id=str(uuid.uuid4()),
                type=message.DESCRIPTOR.full_name,
                topic=kind.topic,
                key=getattr(message, kind.key),
                source="svc_payment",
                time=datetime.now(UTC).isoformat(),
                payload=message.SerializeToString(),
            )
            await bus.publish([event])
            await eventually(lambda: rows.fetchval("SELECT count(*) FROM inbox WHERE event_id = $1", event.id), bool)

        yield publish


def retry(order, token="tok_ok", request_id="retry-1"):
    return pb.RetryPaymentRequest(order_id=order.order_id, payment_method_token=token, request_id=request_id)


async def test_a_declined_order_that_waits_is_paid_by_another_method(shop, rows):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 2), token="tok_declined", keep_on_decline=True))
        assert (order.state, order.payment_state) == (pb.ORDER_STATE_PENDING, pb.ORDER_PAYMENT_STATE_PENDING)
        assert order.state_reason == "PAYMENT_DECLINED"
        assert order.payment_due_time.ToDatetime(UTC) > datetime.now(UTC)
        assert await available(shop, "shirt") == 8
        again = await shop.orders.RetryPayment(retry(order, "tok_declined"))
        assert (again.state, again.state_reason) == (pb.ORDER_STATE_PENDING, "PAYMENT_DECLINED")
        with shop.customer("customer-2"), pytest.raises(OrderNotFound):
            await shop.orders.RetryPayment(retry(order, request_id="retry-2"))
        paid = await shop.orders.RetryPayment(retry(order, request_id="retry-3"))
        assert (paid.state, paid.payment_state) == (pb.ORDER_STATE_CONFIRMED, pb.ORDER_PAYMENT_STATE_AUTHORIZED)
        assert (paid.state_reason, paid.HasField("payment_due_time")) == ("", False)
        assert len({order.payment_id, again.payment_id, paid.payment_id}) == 3
        assert (await payment_of(shop, paid)).authorized_amount == order.total
        with pytest.raises(OrderNotPayable):
            await shop.orders.RetryPayment(retry(order, request_id="retry-4"))
        timeline = await shop.orders.GetOrderTimeline(pb.GetOrderTimelineRequest(order_id=order.order_id))
    assert timeline.payment.payment_id == paid.payment_id
    published = await rows.fetchval("SELECT count(*) FROM outbox WHERE key = $1", order.order_id)
    assert published >= int(paid.etag)


@pytest.mark.parametrize("orders_settings", [{"confirm_seconds": 2.0, "keep_declined_orders": True}], ids=["kept"])
async def test_a_declined_order_that_nobody_pays_for_is_rejected_at_its_deadline(shop):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 2), token="tok_declined"))
        assert order.state == pb.ORDER_STATE_PENDING
        rejected = await reached(shop, order.order_id, pb.ORDER_STATE_REJECTED)
    assert rejected.state_reason == "PAYMENT_DECLINED"
    assert await available(shop, "shirt") == 10


async def test_an_order_whose_authorization_was_voided_is_cancelled(shop, publish):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 2)))
        other = payment_events.PaymentVoided(payment_id="payment-other", order_id=order.order_id)
        await publish(other)
        assert (await get(shop, order.order_id)).state == pb.ORDER_STATE_CONFIRMED
        await publish(payment_events.PaymentVoided(payment_id=order.payment_id, order_id=order.order_id))
        cancelled = await reached(shop, order.order_id, pb.ORDER_STATE_CANCELLED)
    assert (cancelled.state_reason, cancelled.payment_state) == ("PAYMENT_VOIDED", pb.ORDER_PAYMENT_STATE_UNPAID)
    assert await available(shop, "shirt") == 10


@pytest.mark.parametrize("orders_settings", [{"ship_days": 0.5 / 86400}], ids=["half a second"])
async def test_a_confirmed_order_that_is_not_shipped_in_time_is_cancelled(shop):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
        cancelled = await reached(shop, order.order_id, pb.ORDER_STATE_CANCELLED)
        assert await states_of(shop, order.order_id) == ["PENDING", "CONFIRMED", "CANCELLED"]
        assert (await payment_of(shop, order)).state == payment_pb.PAYMENT_STATE_VOIDED
    assert cancelled.state_reason == "NOT_SHIPPED_IN_TIME"


async def test_an_order_without_an_authorization_is_not_shipped(shop):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
    payments = await asyncpg.connect(shop.databases["svc_payment"])
    await payments.execute("UPDATE payment SET state = 'VOIDED'")  # its event is still under way
    await payments.close()
    with pytest.raises(OrderNotShippable) as error:
        await ship(shop, order.order_id)
    assert error.value.metadata["state"] == "not paid for"
    assert (await saga_of(shop, order.order_id)).current_step == "await_shipment"


async def test_a_dispute_and_its_end_are_shown(shop, publish):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
        ids = {"payment_id": order.payment_id, "order_id": order.order_id}
        await publish(payment_events.PaymentCaptured(**ids, amount=order.total))
        for event, state in (
            (payment_events.PaymentDisputed(**ids), pb.ORDER_PAYMENT_STATE_DISPUTED),
            (
                payment_events.PaymentDisputeClosed(**ids, state=payment_pb.PAYMENT_STATE_CAPTURED),
                pb.ORDER_PAYMENT_STATE_PAID,
            ),
            (payment_events.PaymentDisputed(**ids), pb.ORDER_PAYMENT_STATE_DISPUTED),
            (
                payment_events.PaymentDisputeClosed(**ids, state=payment_pb.PAYMENT_STATE_CHARGED_BACK),
                pb.ORDER_PAYMENT_STATE_CHARGED_BACK,
            ),
        ):
            await publish(event)
            assert (await get(shop, order.order_id)).payment_state == state


async def test_the_limit_of_pending_orders_is_exact_under_concurrency(shop, rows):
    """A pending order counts although no other transaction saw it while it was placed.

    There is stock for all, and a slip is paid days later: none of the orders stops being pending during the test.
    """
    with shop.staff():
        lines = [inventory_pb.AdjustmentLine(sku="shirt", location_id="bkk", delta=15)]
        received = inventory_pb.ADJUSTMENT_REASON_RECEIVED
        more = inventory_pb.AdjustStockRequest(lines=lines, reason=received, reference="note-1", request_id="a-1")
        await shop.inventory.AdjustStock(more)
    with shop.customer():
        requests = [buy(("shirt", 1), token="tok_konbini") for _ in range(25)]
        results = await asyncio.gather(*map(shop.orders.CreateOrder, requests), return_exceptions=True)
    placed = [one for one in results if isinstance(one, pb.Order) and one.state == pb.ORDER_STATE_PENDING]
    limited = [one for one in results if isinstance(one, TooManyOpenOrders)]
    assert (len(placed), len(limited)) == (20, 5)
    assert await rows.fetchval("SELECT count(*) FROM orders WHERE state = 'PENDING'") == 20


async def test_a_saga_with_a_shipment_is_compensated_only_after_the_shipment_was_cancelled(shop):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
    shipment = await ship(shop, order.order_id)
    with shop.staff():
        request = sagas_pb.CompensateSagaRequest(saga_id=saga_id(order.order_id), reason="lost", request_id="u-1")
        saga = await shop.sagas.CompensateSaga(request)
        assert (saga.state, saga.current_step) == (saga_pb2.SAGA_STATE_COMPENSATING, "create_shipment")
        await reached(shop, order.order_id, pb.ORDER_STATE_CANCELLED)
        now = await shop.shipments.GetShipment(shipment_pb.GetShipmentRequest(shipment_id=shipment.shipment_id))
    assert now.state == shipment_pb.SHIPMENT_STATE_CANCELLED


async def test_an_order_waits_for_a_slip_that_is_paid_later_and_its_stock_is_held_as_long(shop, look_at_provider):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 2), token="tok_konbini_paid"))
        assert (order.state, order.payment_state) == (pb.ORDER_STATE_PENDING, pb.ORDER_PAYMENT_STATE_PENDING)
        assert order.payment_due_time.ToDatetime(UTC) > datetime.now(UTC) + timedelta(days=2)
        async with client_for(shop.addresses["svc_inventory"], InventoryServiceStub, caller="svc_order") as inventory:
            request = inventory_pb.GetReservationRequest(reservation_id=order.reservation_id)
            held_until = (await inventory.GetReservation(request)).expire_time.ToDatetime(UTC)
        assert held_until > datetime.now(UTC) + timedelta(days=2)

        async def paid():
            await look_at_provider()
            return await get(shop, order.order_id)

        confirmed = await eventually(paid, lambda one: one.payment_state == pb.ORDER_PAYMENT_STATE_PAID)
        assert (await reached(shop, order.order_id, pb.ORDER_STATE_CONFIRMED)).payment_id == confirmed.payment_id


async def test_a_customer_who_refuses_to_act_leaves_a_rejected_order(shop, look_at_provider):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 2), token="tok_3ds_refused"))

        async def ended():
            await look_at_provider()
            return await get(shop, order.order_id)

        await eventually(ended, lambda one: one.state == pb.ORDER_STATE_REJECTED)
    assert await available(shop, "shirt") == 10


async def test_the_expired_authorization_of_a_confirmed_order_is_renewed(shop, rows, look_at_provider):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1), token="tok_lapsing"))
        assert order.state == pb.ORDER_STATE_CONFIRMED
        first = order.payment_state

        async def lapsed():
            await look_at_provider()
            query = "SELECT count(*) FROM outbox WHERE key = $1 AND type LIKE '%PaymentStateChanged'"
            return await rows.fetchval(query, order.order_id)

        assert first == pb.ORDER_PAYMENT_STATE_AUTHORIZED
        await eventually(lapsed, lambda changes: changes >= 3)  # authorized, unpaid, authorized
        renewed = await get(shop, order.order_id)
    assert (renewed.state, renewed.payment_state) == (pb.ORDER_STATE_CONFIRMED, pb.ORDER_PAYMENT_STATE_AUTHORIZED)
    assert renewed.payment_id == order.payment_id
