"""SagaService: parked sagas, and what operators can do about them."""

from dataclasses import replace
from datetime import timedelta

import pytest

from chassis.testing import client_for, eventually
from shop.chassis.v1.chassis_errors import IdempotencyKeyReused, PageTokenInvalid, RoleMissing
from shop.delivery.v1 import shipment_service_pb2 as shipment_pb
from shop.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub
from shop.order.v1 import order_service_pb2 as pb
from shop.order.v1 import saga_pb2
from shop.order.v1 import saga_service_pb2 as sagas_pb
from shop.order.v1.order_errors import OrderNotCancellable, OrderNotFound, SagaNotFound, SagaStateConflict
from shop.payment.v1 import payment_service_pb2 as payment_pb
from svc_order.domain_pricing import price_lines, quote
from svc_order.domain_saga import Done, Refused, Saga, SagaState, Step, Unknown
from svc_order.saga import Claim, SagaOrchestrator
from tests.integration.svc_order.conftest import buy
from tests.integration.svc_order.shop_queries import (
    available,
    get,
    move,
    paying,
    payment_of,
    reached,
    saga_id,
    saga_of,
    ship,
    states_of,
    timeline,
)
from tests.unit.svc_order.test_domain import a_price, an_order

LEASE = timedelta(seconds=5)
BROKEN = ["authorize_500"] * 60


async def parked(shop, rows, order_id):
    """Return an order's saga, parked, since the last of its tries is brought nearer."""
    nearer = "UPDATE saga SET attempts = 11, next_attempt_time = now() WHERE order_id = $1 AND attempts < 12"

    async def look():
        await rows.execute(nearer, order_id)  # again, should a try have been under way
        return await saga_of(shop, order_id)

    return await eventually(look, lambda saga: saga.state == saga_pb2.SAGA_STATE_PARKED)


def retry(order_id, request_id="r-1"):
    return sagas_pb.RetrySagaRequest(saga_id=saga_id(order_id), request_id=request_id)


def compensate(order_id, reason="", request_id="u-1"):
    return sagas_pb.CompensateSagaRequest(saga_id=saga_id(order_id), reason=reason, request_id=request_id)


async def test_a_step_without_an_answer_parks_the_saga_until_it_is_retried(shop, rows, provider):
    await provider(*BROKEN)
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
        assert order.state == pb.ORDER_STATE_PENDING
    saga = await parked(shop, rows, order.order_id)
    assert (saga.current_step, saga.attempts, saga.reason) == ("authorize_payment", 12, "UNAVAILABLE")
    assert {step.name: (step.state, step.reason) for step in saga.steps}["authorize_payment"] == (
        saga_pb2.SAGA_STEP_STATE_UNKNOWN,
        "UNAVAILABLE",
    )
    await provider()
    with shop.staff():
        going = await shop.sagas.RetrySaga(retry(order.order_id))
        assert (going.state, going.attempts, going.reason) == (saga_pb2.SAGA_STATE_RUNNING, 0, "")
        assert (await shop.sagas.RetrySaga(retry(order.order_id))).state == saga_pb2.SAGA_STATE_RUNNING
    with shop.customer():
        confirmed = await reached(shop, order.order_id, pb.ORDER_STATE_CONFIRMED)
        payment = await payment_of(shop, confirmed)
    assert payment.authorized_amount == order.total
    assert (await saga_of(shop, order.order_id)).current_step == "await_shipment"


async def test_a_saga_compensated_by_an_operator_releases_what_it_held_and_keeps_their_words(shop, rows, provider):
    await provider(*BROKEN)
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 4)))
    await parked(shop, rows, order.order_id)
    with shop.staff():
        await shop.sagas.CompensateSaga(compensate(order.order_id, "the provider is gone"))
    with shop.customer():
        rejected = await reached(shop, order.order_id, pb.ORDER_STATE_REJECTED)
    assert (rejected.state_reason, rejected.state_message) == ("COMPENSATED_BY_OPERATOR", "the provider is gone")
    assert await available(shop, "shirt") == 10
    with shop.staff():
        for request in (retry(order.order_id), compensate(order.order_id, request_id="u-2")):
            rpc = shop.sagas.RetrySaga if request.request_id == "r-1" else shop.sagas.CompensateSaga
            with pytest.raises(SagaStateConflict):
                await rpc(request)


async def test_an_authorization_during_an_operators_compensation_is_voided(shop, rows):
    with shop.customer():
        async with paying(shop, rows, buy(("shirt", 1), token="tok_slow_3000")) as (order_id, placing):
            with shop.staff():
                turned = await shop.sagas.CompensateSaga(compensate(order_id))
            assert (turned.state, turned.current_step) == (saga_pb2.SAGA_STATE_COMPENSATING, "authorize_payment")
            await placing
        order = await reached(shop, order_id, pb.ORDER_STATE_REJECTED)
        payment = await eventually(
            lambda: payment_of(shop, order), lambda one: one.state == payment_pb.PAYMENT_STATE_VOIDED
        )
        assert await states_of(shop, order_id) == ["PENDING", "REJECTED"]
    assert not payment.captured_amount.units
    assert await available(shop, "shirt") == 10


async def test_a_cancellation_of_a_parked_saga_takes_effect_when_it_is_retried(shop, rows, provider):
    await provider(*BROKEN)
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
    await parked(shop, rows, order.order_id)
    await rows.execute("UPDATE saga SET next_attempt_time = now()")
    with shop.customer():
        request = pb.CancelOrderRequest(order_id=order.order_id, reason="too slow", request_id="c-1")
        assert (await shop.orders.CancelOrder(request)).state == pb.ORDER_STATE_PENDING
    assert (await saga_of(shop, order.order_id)).state == saga_pb2.SAGA_STATE_PARKED
    await provider()
    with shop.staff():
        await shop.sagas.RetrySaga(retry(order.order_id))
    with shop.customer():
        cancelled = await reached(shop, order.order_id, pb.ORDER_STATE_CANCELLED)
        assert (await payment_of(shop, order)).state == payment_pb.PAYMENT_STATE_VOIDED
    assert (cancelled.state_reason, cancelled.state_message) == ("CANCELLED_BY_CUSTOMER", "too slow")


async def test_a_declined_capture_parks_the_saga_and_a_retry_captures_with_a_new_key(shop, rows, provider):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
    shipment = await ship(shop, order.order_id)
    await provider("capture_declined")
    await move(shop, shipment, shipment_pb.SHIPMENT_STATE_PICKED_UP)
    saga = await eventually(
        lambda: saga_of(shop, order.order_id), lambda saga: saga.state == saga_pb2.SAGA_STATE_PARKED
    )
    assert (saga.current_step, saga.reason) == ("capture_payment", "PAYMENT_DECLINED")
    with shop.customer():
        assert (await get(shop, order.order_id)).state == pb.ORDER_STATE_CONFIRMED
        with pytest.raises(OrderNotCancellable):
            await shop.orders.CancelOrder(pb.CancelOrderRequest(order_id=order.order_id, request_id="c-1"))
    with shop.staff():
        with pytest.raises(SagaStateConflict):
            await shop.sagas.CompensateSaga(compensate(order.order_id))
        await shop.sagas.RetrySaga(retry(order.order_id))
    with shop.customer():
        assert (
            await reached(shop, order.order_id, pb.ORDER_STATE_SHIPPED)
        ).payment_state == pb.ORDER_PAYMENT_STATE_PAID
        await eventually(
            lambda: timeline(shop, order.order_id),
            lambda steps: steps.get("fulfill_reservation") == saga_pb2.SAGA_STEP_STATE_DONE,
        )
    assert await eventually(lambda: rows.fetchval("SELECT state FROM saga"), lambda state: state == "DONE")
    assert await rows.fetchval("SELECT payment_method_token FROM saga") == ""


async def test_sagas_are_listed_oldest_first_page_by_page_and_by_state(shop):
    with shop.customer():
        tokens = ("tok_ok", "tok_declined", "tok_ok", "tok_declined")
        made = [(await shop.orders.CreateOrder(buy(("shirt", 1), token=token))).order_id for token in tokens]
    with shop.staff():
        first = await shop.sagas.ListSagas(sagas_pb.ListSagasRequest(page_size=3))
        rest = await shop.sagas.ListSagas(sagas_pb.ListSagasRequest(page_size=3, page_token=first.next_page_token))
        undone = await shop.sagas.ListSagas(
            sagas_pb.ListSagasRequest(page_size=2, state=saga_pb2.SAGA_STATE_COMPENSATED)
        )
        with pytest.raises(PageTokenInvalid):
            await shop.sagas.ListSagas(sagas_pb.ListSagasRequest(page_token="no"))
    assert [len(first.sagas), len(rest.sagas), rest.next_page_token] == [3, 1, ""]
    assert [saga.order_id for saga in (*first.sagas, *rest.sagas)] == made
    assert [saga.order_id for saga in undone.sagas] == [made[1], made[3]]
    assert undone.next_page_token == ""
    assert {saga.reason for saga in undone.sagas} == {"PAYMENT_DECLINED"}


async def test_only_staff_read_sagas_and_an_unknown_saga_is_not_found(shop):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
        with pytest.raises(RoleMissing):
            await shop.sagas.GetSaga(sagas_pb.GetSagaRequest(saga_id=saga_id(order.order_id)))
    nothing = {"saga_id": "saga-none", "request_id": "n-1"}
    with shop.staff():
        with pytest.raises(SagaNotFound):
            await shop.sagas.GetSaga(sagas_pb.GetSagaRequest(saga_id="saga-none"))
        with pytest.raises(SagaNotFound):
            await shop.sagas.RetrySaga(sagas_pb.RetrySagaRequest(**nothing))
        with pytest.raises(SagaNotFound):
            await shop.sagas.CompensateSaga(sagas_pb.CompensateSagaRequest(**nothing))
        with pytest.raises(SagaStateConflict):
            await shop.sagas.RetrySaga(retry(order.order_id))
        with pytest.raises(IdempotencyKeyReused):
            await shop.sagas.RetrySaga(retry("order-other"))
        with pytest.raises(OrderNotFound):
            await shop.orders.GetOrder(pb.GetOrderRequest(order_id="order-none"))


async def test_a_step_denied_by_the_pipeline_has_an_unknown_outcome(shop):
    async with client_for(shop.addresses["svc_inventory"], InventoryServiceStub) as denied:
        steps = SagaOrchestrator(denied, shop.delivery, shop.payments, shop.shipments, lease=LEASE)
        order = an_order()
        saga = Saga(id="saga-1", order_id=order.id, next_attempt_time=order.create_time)
        assert await steps.execute(Claim(saga, order, "tok_ok")) == Unknown("CALLER_DENIED")
    async with client_for(shop.addresses["svc_inventory"], InventoryServiceStub, caller="svc_order") as allowed:
        steps = SagaOrchestrator(allowed, shop.delivery, shop.payments, shop.shipments, lease=LEASE)
        unreadable = an_order(id="no such id", reservation_id="no such id")
        assert await steps.execute(Claim(saga, unreadable, "tok_ok")) == Refused("INVALID_REQUEST")
        confirming = Saga(
            id="saga-1", order_id=order.id, next_attempt_time=order.create_time, step=Step.CONFIRM_RESERVATION
        )
        assert await steps.execute(Claim(confirming, order, "tok_ok")) == Refused("RESERVATION_NOT_FOUND")


async def test_a_released_reservation_refuses_the_step_that_made_it(shop):
    async with client_for(shop.addresses["svc_inventory"], InventoryServiceStub, caller="svc_order") as inventory:
        steps = SagaOrchestrator(inventory, shop.delivery, shop.payments, shop.shipments, lease=LEASE)
        prices = {"shirt": a_price("shirt")}
        order = an_order(totals=quote(price_lines([("shirt", 1)], prices, "THB"), "THB", 0, 0))
        forth = Saga(id="saga-1", order_id=order.id, next_attempt_time=order.create_time)
        back = replace(forth, state=SagaState.COMPENSATING)
        assert await steps.execute(Claim(back, order, "tok_ok")) == Done()
        assert [await steps.execute(Claim(forth, order, "tok_ok")) for _ in range(2)] == [Done(), Done()]
        assert await steps.execute(Claim(back, order, "tok_ok")) == Done()
        assert await steps.execute(Claim(forth, order, "tok_ok")) == Refused("RESERVATION_EXPIRED")
