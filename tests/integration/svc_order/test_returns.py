"""Returns: goods come back, are restocked and refunded once, whichever process dies in between."""

import uuid

import pytest

from chassis.testing import client_for, eventually
from chassis.types.money import money
from shop.chassis.v1.chassis_errors import InvalidRequest, RoleMissing
from shop.delivery.v1 import shipment_service_pb2 as shipment_pb
from shop.order.v1 import order_service_pb2 as pb
from shop.order.v1 import return_service_pb2 as return_pb
from shop.order.v1.order_errors import (
    OrderNotFound,
    OrderNotReturnable,
    ReturnNotFound,
    ReturnQuantityTooLarge,
    ReturnStateConflict,
)
from shop.order.v1.return_service_pb2_grpc import ReturnServiceStub
from shop.payment.v1 import payment_service_pb2 as payment_pb
from tests.integration.svc_order.shop import buy
from tests.integration.svc_order.shop_queries import available, get, move, payment_of, reached, ship, states_of

ROAD = [
    shipment_pb.ShipmentState.Value(f"SHIPMENT_STATE_{name}")
    for name in ("PICKED_UP", "IN_TRANSIT", "OUT_FOR_DELIVERY", "DELIVERED")
]
REQUESTED, APPROVED, REJECTED, RECEIVED, COMPLETED, CANCELLED = range(1, 7)


class Returns:
    """What customer and staff do about returns."""

    def __init__(self, shop, stub):
        self.shop = shop
        self.stub = stub

    async def delivered(self, *lines):
        """Return an order that was delivered."""
        with self.shop.customer():
            order = await self.shop.orders.CreateOrder(buy(*lines))
            await move(self.shop, await ship(self.shop, order.order_id), *ROAD)
            return await reached(self.shop, order.order_id, pb.ORDER_STATE_DELIVERED)

    async def create(self, order, *lines, customer="customer-1"):
        request = return_pb.CreateReturnRequest(
            order_id=order.order_id,
            lines=[return_pb.ReturnLine(sku=sku, quantity=quantity) for sku, quantity in lines],
            reason=return_pb.RETURN_REASON_DAMAGED,
            message="torn",
            request_id=uuid.uuid4().hex,
        )
        with self.shop.customer(customer):
            return await self.stub.CreateReturn(request)

    async def decide(self, name, one, message=""):
        request = getattr(return_pb, f"{name}Request")(
            return_id=one.return_id, message=message, request_id=uuid.uuid4().hex
        )
        with self.shop.staff():
            return await getattr(self.stub, name)(request)

    async def receive(self, one, *lines, location_id="bkk", request_id=None):
        request = return_pb.ReceiveReturnRequest(
            return_id=one.return_id,
            lines=[
                return_pb.ReceivedLine(
                    sku=sku, restocked=good, written_off=bad, location_id=location_id if good else ""
                )
                for sku, good, bad in lines
            ],
            request_id=request_id or uuid.uuid4().hex,
        )
        with self.shop.staff():
            return await self.stub.ReceiveReturn(request)

    async def get(self, one):
        with self.shop.staff():
            return await self.stub.GetReturn(return_pb.GetReturnRequest(return_id=one.return_id))

    async def ended(self, one):
        return await eventually(lambda: self.get(one), lambda found: found.state in (COMPLETED, REJECTED, CANCELLED))


@pytest.fixture
async def returns(shop):
    async with client_for(shop.addresses["svc_order"], ReturnServiceStub) as stub:
        yield Returns(shop, stub)


async def refunded(shop, order):
    return (await payment_of(shop, order)).refunded_amount


async def test_a_return_of_everything_is_restocked_and_refunded_with_the_shipping_fee(shop, returns, rows):
    order = await returns.delivered(("shirt", 2), ("coat", 1))
    one = await returns.create(order, ("shirt", 2), ("coat", 1))
    assert (one.state, one.message) == (REQUESTED, "torn")
    with shop.customer():
        assert (await get(shop, order.order_id)).state == pb.ORDER_STATE_RETURN_REQUESTED
    assert (await returns.decide("ApproveReturn", one)).state == APPROVED
    await returns.receive(one, ("shirt", 1, 1), ("coat", 1, 0))
    done = await returns.ended(one)
    assert (done.state, done.refund, done.problem) == (COMPLETED, order.total, "")
    assert [(line.restocked, line.written_off, line.location_id) for line in done.lines] == [
        (1, 1, "bkk"),
        (1, 0, "bkk"),
    ]
    assert [step.state for step in done.transitions] == [REQUESTED, APPROVED, RECEIVED, COMPLETED]
    with shop.customer():
        returned = await reached(shop, order.order_id, pb.ORDER_STATE_RETURNED)
        await eventually(
            lambda: get(shop, order.order_id), lambda now: now.payment_state == pb.ORDER_PAYMENT_STATE_REFUNDED
        )
        assert await states_of(shop, order.order_id) == [
            *("PENDING", "CONFIRMED", "SHIPPED", "DELIVERED", "RETURN_REQUESTED", "RETURNED")
        ]
        assert await refunded(shop, order) == order.total
        timeline = await shop.orders.GetOrderTimeline(pb.GetOrderTimelineRequest(order_id=order.order_id))
    assert list(timeline.returns) == [done]
    assert returned.fulfillment_state == pb.FULFILLMENT_STATE_DELIVERED
    assert (await available(shop, "shirt"), await available(shop, "coat")) == (9, 10)
    types = await rows.fetch("SELECT type FROM outbox ORDER BY id")
    names = [row["type"].removeprefix("shop.order.v1.Order") for row in types]
    assert names.count("ReturnChanged") == 4
    assert names.count("Returned") == 1


async def test_returns_in_portions_refund_the_whole_amount_to_the_minor_unit(shop, returns):
    order = await returns.delivered(("shirt", 3))
    total = 0
    for number in range(3):
        one = await returns.create(order, ("shirt", 1))
        await returns.decide("ApproveReturn", one)
        await returns.receive(one, ("shirt", 0, 1))
        refund = (await returns.ended(one)).refund
        total += refund.units * 100 + refund.nanos // 10_000_000
        with shop.customer():
            await reached(shop, order.order_id, pb.ORDER_STATE_RETURNED if number == 2 else pb.ORDER_STATE_DELIVERED)
    assert money(total, "THB") == order.total
    with shop.customer():
        assert (await payment_of(shop, order)).state == payment_pb.PAYMENT_STATE_REFUNDED
    assert await available(shop, "shirt") == 7


@pytest.mark.parametrize(("decision", "state"), [("RejectReturn", REJECTED), ("CancelReturn", CANCELLED)])
async def test_an_order_whose_return_is_rejected_or_cancelled_is_delivered_again(shop, returns, decision, state):
    order = await returns.delivered(("shirt", 1))
    one = await returns.create(order, ("shirt", 1))
    ended = await returns.decide(decision, one, "it was worn")
    assert (ended.state, ended.transitions[-1].message) == (state, "it was worn")
    for again in ("ApproveReturn", "RejectReturn", "CancelReturn"):
        with pytest.raises(ReturnStateConflict):
            await returns.decide(again, one)
    with shop.customer():
        assert (await get(shop, order.order_id)).state == pb.ORDER_STATE_DELIVERED
    assert (await returns.create(order, ("shirt", 1))).state == REQUESTED


async def test_what_is_not_delivered_or_not_there_cannot_be_returned(shop, returns, rows):
    with shop.customer():
        placed = await shop.orders.CreateOrder(buy(("shirt", 1)))
    with pytest.raises(OrderNotReturnable):
        await returns.create(placed, ("shirt", 1))
    order = await returns.delivered(("shirt", 2))
    with pytest.raises(OrderNotFound):
        await returns.create(order, ("shirt", 1), customer="customer-2")
    for lines in ([("shirt", 3)], [("coat", 1)], [("shirt", 1), ("shirt", 2)]):
        with pytest.raises(ReturnQuantityTooLarge):
            await returns.create(order, *lines)
    one = await returns.create(order, ("shirt", 1))
    with pytest.raises(OrderNotReturnable):
        await returns.create(order, ("shirt", 1))  # one at a time
    with shop.customer("customer-2"), pytest.raises(ReturnNotFound):
        await returns.stub.GetReturn(return_pb.GetReturnRequest(return_id=one.return_id))
    with shop.customer(), pytest.raises(RoleMissing):
        await returns.stub.ApproveReturn(return_pb.ApproveReturnRequest(return_id=one.return_id, request_id="k"))
    with pytest.raises(ReturnStateConflict):
        await returns.receive(one, ("shirt", 1, 0))
    await returns.decide("ApproveReturn", one)
    with pytest.raises(ReturnQuantityTooLarge):
        await returns.receive(one, ("shirt", 1, 1))
    with pytest.raises(InvalidRequest):
        await returns.receive(one, ("shirt", 1, 0), location_id="")
    await returns.decide("CancelReturn", one)
    await rows.execute("UPDATE order_history SET create_time = now() - interval '15 days' WHERE to_state = 'DELIVERED'")
    with pytest.raises(OrderNotReturnable):
        await returns.create(order, ("shirt", 1))


async def test_units_for_a_location_without_stock_are_received_again(shop, returns):
    order = await returns.delivered(("shirt", 1))
    one = await returns.create(order, ("shirt", 1))
    await returns.decide("ApproveReturn", one)
    await returns.receive(one, ("shirt", 1, 0), location_id="nowhere")
    waiting = await eventually(lambda: returns.get(one), lambda found: found.state == APPROVED)
    assert (waiting.problem, waiting.lines[0].restocked) == ("SKU_NOT_FOUND", 0)
    await returns.receive(one, ("shirt", 1, 0))
    assert (await returns.ended(one)).state == COMPLETED
    assert await available(shop, "shirt") == 10
    with shop.customer():
        assert await refunded(shop, order) == order.total


@pytest.mark.parametrize("step", ["restock", "refund"])
async def test_a_step_whose_process_died_takes_effect_once(shop, returns, rows, step):
    order = await returns.delivered(("shirt", 1))
    one = await returns.create(order, ("shirt", 1))
    await returns.decide("ApproveReturn", one)
    await returns.receive(one, ("shirt", 1, 0))
    await returns.ended(one)
    # As the process left it that died between the other service's commit and its own.
    await rows.execute(
        "UPDATE order_return SET state = 'RECEIVED', step = $1, next_attempt_time = now() - interval '1 second'", step
    )
    await rows.execute("UPDATE orders SET state = 'RETURN_REQUESTED'")
    await returns.ended(one)
    assert await available(shop, "shirt") == 10
    with shop.customer():
        assert await refunded(shop, order) == order.total
        await reached(shop, order.order_id, pb.ORDER_STATE_RETURNED)


async def test_a_parcel_that_comes_back_is_a_return_that_staff_receives(shop, returns):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 2)))
        shipment = await ship(shop, order.order_id)
        await move(shop, shipment, shipment_pb.SHIPMENT_STATE_PICKED_UP)
        await reached(shop, order.order_id, pb.ORDER_STATE_SHIPPED)
        await move(shop, shipment, shipment_pb.SHIPMENT_STATE_FAILED, shipment_pb.SHIPMENT_STATE_RETURNED)
        await reached(shop, order.order_id, pb.ORDER_STATE_RETURN_REQUESTED)
        found = await returns.stub.ListReturns(return_pb.ListReturnsRequest(order_id=order.order_id))
    (one,) = found.returns
    assert (one.state, one.reason) == (APPROVED, return_pb.RETURN_REASON_PARCEL_RETURNED)
    with pytest.raises(ReturnStateConflict):
        await returns.decide("CancelReturn", one)
    await returns.receive(one, ("shirt", 1, 0))  # the other one is lost
    assert (await returns.ended(one)).refund == order.total
    with shop.customer():
        await reached(shop, order.order_id, pb.ORDER_STATE_RETURNED)
        assert await refunded(shop, order) == order.total
    assert await available(shop, "shirt") == 9
