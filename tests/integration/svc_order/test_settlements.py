"""What operators decide about steps and refunds that a participant refuses for good."""

import uuid

import pytest

from chassis.testing import client_for, eventually
from chassis.types.money import money
from shop.chassis.v1.chassis_errors import RoleMissing
from shop.delivery.v1 import shipment_service_pb2 as shipment_pb
from shop.order.v1 import cancellation_service_pb2 as cancellation_pb
from shop.order.v1 import order_service_pb2 as pb
from shop.order.v1 import return_service_pb2 as return_pb
from shop.order.v1 import saga_pb2
from shop.order.v1 import saga_service_pb2 as sagas_pb
from shop.order.v1.cancellation_service_pb2_grpc import CancellationServiceStub
from shop.order.v1.order_errors import (
    CancellationNotFound,
    CancellationStateConflict,
    ReturnStateConflict,
    SagaStateConflict,
)
from shop.order.v1.return_service_pb2_grpc import ReturnServiceStub
from tests.integration.svc_order.shop import buy
from tests.integration.svc_order.shop_queries import (
    get,
    move,
    paid_slip,
    payment_of,
    reached,
    saga_id,
    saga_of,
    ship,
)

ROAD = [
    shipment_pb.ShipmentState.Value(f"SHIPMENT_STATE_{name}")
    for name in ("PICKED_UP", "IN_TRANSIT", "OUT_FOR_DELIVERY", "DELIVERED")
]
RETRY, OUTSIDE = return_pb.REFUND_DECISION_RETRY, return_pb.REFUND_DECISION_REFUNDED_OUTSIDE


def settle_saga(order, action):
    return sagas_pb.SettleSagaRequest(
        saga_id=saga_id(order.order_id), action=action, reason="paid by transfer", request_id=uuid.uuid4().hex
    )


@pytest.mark.parametrize(
    ("action", "payment_state"),
    [
        (saga_pb2.SAGA_ACTION_SETTLE, pb.ORDER_PAYMENT_STATE_PAID),
        (saga_pb2.SAGA_ACTION_WRITE_OFF, pb.ORDER_PAYMENT_STATE_AUTHORIZED),
    ],
)
async def test_a_parked_saga_goes_on_after_the_step_that_an_operator_settles(shop, provider, action, payment_state):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
    with shop.staff(), pytest.raises(SagaStateConflict):
        await shop.sagas.SettleSaga(settle_saga(order, action))  # it is not parked
    shipment = await ship(shop, order.order_id)
    await provider("capture_declined")
    await move(shop, shipment, shipment_pb.SHIPMENT_STATE_PICKED_UP)
    await eventually(lambda: saga_of(shop, order.order_id), lambda saga: saga.state == saga_pb2.SAGA_STATE_PARKED)
    with shop.customer("staff-2", "staff"), pytest.raises(RoleMissing):
        await shop.sagas.SettleSaga(settle_saga(order, action))
    with shop.staff():
        await shop.sagas.SettleSaga(settle_saga(order, action))
    with shop.customer():
        shipped = await reached(shop, order.order_id, pb.ORDER_STATE_SHIPPED)
    assert shipped.payment_state == payment_state
    done = await eventually(lambda: saga_of(shop, order.order_id), lambda saga: saga.state == saga_pb2.SAGA_STATE_DONE)
    (decision,) = done.decisions
    assert (decision.action, decision.actor, decision.reason) == (action, "staff-1", "paid by transfer")
    assert decision.step == "capture_payment"


@pytest.mark.parametrize("decision", [RETRY, OUTSIDE], ids=["retried", "outside"])
async def test_a_return_whose_refund_is_refused_waits_for_an_operator(shop, provider, decision):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
        await move(shop, await ship(shop, order.order_id), *ROAD)
        await reached(shop, order.order_id, pb.ORDER_STATE_DELIVERED)
    async with client_for(shop.addresses["svc_order"], ReturnServiceStub) as returns:
        with shop.staff():
            one = await returns.CreateReturn(
                return_pb.CreateReturnRequest(
                    order_id=order.order_id,
                    lines=[return_pb.ReturnLine(sku="shirt", quantity=1)],
                    reason=return_pb.RETURN_REASON_DAMAGED,
                    request_id="r-1",
                )
            )
            settle = return_pb.SettleReturnRequest(
                return_id=one.return_id, decision=decision, reason="card closed", request_id="early"
            )
            with pytest.raises(ReturnStateConflict):
                await returns.SettleReturn(settle)
            await returns.ApproveReturn(return_pb.ApproveReturnRequest(return_id=one.return_id, request_id="a-1"))
            await provider("refund_declined")
            line = return_pb.ReceivedLine(sku="shirt", written_off=1)
            received = return_pb.ReceiveReturnRequest(return_id=one.return_id, lines=[line], request_id="g-1")
            await returns.ReceiveReturn(received)

            async def in_state(state):
                request = return_pb.GetReturnRequest(return_id=one.return_id)
                return await eventually(lambda: returns.GetReturn(request), lambda found: found.state == state)

            refused = await in_state(return_pb.RETURN_STATE_REFUND_REFUSED)
            assert refused.problem == "PAYMENT_DECLINED"
            assert (await get(shop, order.order_id)).state == pb.ORDER_STATE_RETURN_REQUESTED
            settle.request_id = "s-1"
            await returns.SettleReturn(settle)
            ended = await in_state(return_pb.RETURN_STATE_COMPLETED)
            assert (ended.refunded_outside, ended.problem) == (decision == OUTSIDE, "")
            assert "card closed" in [step.message for step in ended.transitions]
    with shop.customer():
        await reached(shop, order.order_id, pb.ORDER_STATE_RETURNED)
        refunded = (await payment_of(shop, order)).refunded_amount
    assert refunded == (order.total if decision == RETRY else money(0, "THB"))


async def test_cancelled_lines_whose_refund_is_refused_wait_for_an_operator(shop, provider, look_at_provider):
    with shop.customer():
        order = await paid_slip(shop, look_at_provider, buy(("shirt", 3), token="tok_konbini_paid"))
    refunds = []
    async with client_for(shop.addresses["svc_order"], CancellationServiceStub) as cancellations:
        with shop.staff():
            for decision, refund in ((RETRY, True), (OUTSIDE, False)):
                await provider("refund_declined")
                line = cancellation_pb.CancelledLine(sku="shirt", quantity=1)
                request = cancellation_pb.CancelOrderLinesRequest(
                    order_id=order.order_id, lines=[line], request_id=f"c-{decision}"
                )
                one = await cancellations.CancelOrderLines(request)

                async def now():
                    timeline = await shop.orders.GetOrderTimeline(pb.GetOrderTimelineRequest(order_id=order.order_id))
                    return timeline.cancellations[-1]

                refused = await eventually(now, lambda found: found.problem == "PAYMENT_DECLINED")
                assert refused.state == cancellation_pb.CANCELLATION_STATE_REFUND_REFUSED
                settle = cancellation_pb.SettleLineCancellationRequest(
                    cancellation_id=one.cancellation_id, decision=decision, reason="card closed", request_id="s-1"
                )
                if decision == OUTSIDE:
                    settle.request_id = "s-2"
                settled = await cancellations.SettleLineCancellation(settle)
                assert [(it.actor, it.reason) for it in settled.decisions] == [("staff-1", "card closed")]
                ended = await eventually(now, lambda found: found.state == cancellation_pb.CANCELLATION_STATE_COMPLETED)
                assert ended.refund == (one.amount if refund else money(0, "THB"))
                refunds.append(ended.refund)
                settle.request_id += "-again"
                with pytest.raises(CancellationStateConflict):
                    await cancellations.SettleLineCancellation(settle)
            settle.cancellation_id, settle.request_id = "cancellation-none", "s-4"
            with pytest.raises(CancellationNotFound):
                await cancellations.SettleLineCancellation(settle)
    with shop.customer():
        assert (await payment_of(shop, order)).refunded_amount == refunds[0]
