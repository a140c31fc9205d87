"""SagaService: parked sagas, and what operators can do about them."""

import uuid
from dataclasses import replace

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
from svc_order.domain_saga import Saga, SagaState
from svc_order.domain_steps import Done, Refused, Step, Unknown
from svc_order.steps import Claim, Steps
from tests.integration.svc_order.shop import buy
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

BROKEN = ["authorize_500"] * 60


async def due(rows, order_id):
    """Make the next attempt of an order's saga due now."""
    await rows.execute("UPDATE saga SET next_attempt_time = now() WHERE order_id = $1 AND NOT executing", order_id)


async def attempted(rows, order_id, attempts):
    """Wait until a saga has had so many attempts at its step without an answer."""

    async def look():
        await due(rows, order_id)
        query = "SELECT attempts FROM saga WHERE order_id = $1 AND NOT executing"
        return await rows.fetchval(query, order_id) or 0

    await eventually(look, lambda count: count >= attempts)


def retry(order_id, request_id="r-1"):
    return sagas_pb.RetrySagaRequest(saga_id=saga_id(order_id), request_id=request_id)


async def retry_all(shop, **filters):
    request = sagas_pb.RetrySagasRequest(
        filter=sagas_pb.SagaFilter(**filters), reason="why", request_id=uuid.uuid4().hex
    )
    return (await shop.sagas.RetrySagas(request)).saga_ids


def compensate(order_id, reason="", request_id="u-1"):
    return sagas_pb.CompensateSagaRequest(saga_id=saga_id(order_id), reason=reason, request_id=request_id)


async def test_an_order_ends_by_itself_when_the_participant_is_back_after_many_attempts(shop, rows, provider):
    await provider(*BROKEN)
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
        assert order.state == pb.ORDER_STATE_PENDING
        await rows.execute("UPDATE saga SET attempts = attempts + 100")
        await attempted(rows, order.order_id, 2)
        assert (await saga_of(shop, order.order_id)).state == saga_pb2.SAGA_STATE_RUNNING
        await provider()
        await due(rows, order.order_id)
        confirmed = await reached(shop, order.order_id, pb.ORDER_STATE_CONFIRMED)
        assert (await payment_of(shop, confirmed)).authorized_amount == order.total


@pytest.mark.parametrize("orders_settings", [{"confirm_seconds": 2.0}], ids=["two seconds"])
async def test_an_order_without_an_outcome_at_its_deadline_is_undone(shop, rows, provider):
    await provider(*BROKEN)
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 4)))
        rejected = await reached(shop, order.order_id, pb.ORDER_STATE_REJECTED)
        await provider()
    assert rejected.state_reason == "ORDER_EXPIRED"
    assert await available(shop, "shirt") == 10
    assert (await saga_of(shop, order.order_id)).state == saga_pb2.SAGA_STATE_COMPENSATED


@pytest.mark.parametrize("payments_settings", [{"payment_arrival_seconds": 2.0}], ids=["requests arrive in 2 s"])
async def test_an_order_is_cancelled_while_the_provider_does_not_answer(shop, rows, provider):
    await provider(*BROKEN)
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
        request = pb.CancelOrderRequest(order_id=order.order_id, reason="too slow", request_id="c-1")
        await shop.orders.CancelOrder(request)
        cancelled = await reached(shop, order.order_id, pb.ORDER_STATE_CANCELLED)
        await provider()
        payment = await eventually(
            lambda: payment_of(shop, order),
            lambda one: one.state in (payment_pb.PAYMENT_STATE_VOIDED, payment_pb.PAYMENT_STATE_FAILED),
        )
    assert (cancelled.state_reason, cancelled.state_message) == ("CANCELLED_BY_CUSTOMER", "too slow")
    assert not payment.captured_amount.units
    assert await available(shop, "shirt") == 10


async def test_a_saga_compensated_by_an_operator_releases_what_it_held_and_keeps_their_words(shop, rows, provider):
    await provider(*BROKEN)
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 4)))
    with shop.staff():
        await shop.sagas.CompensateSaga(compensate(order.order_id, "the provider is gone"))
    with shop.customer():
        rejected = await reached(shop, order.order_id, pb.ORDER_STATE_REJECTED)
    assert (rejected.state_reason, rejected.state_message) == ("COMPENSATED_BY_OPERATOR", "the provider is gone")
    assert await available(shop, "shirt") == 10
    (decision,) = (await saga_of(shop, order.order_id)).decisions
    assert (decision.action, decision.actor, decision.reason) == (
        saga_pb2.SAGA_ACTION_COMPENSATE,
        "staff-1",
        "the provider is gone",
    )
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
        bulk = sagas_pb.CompensateSagasRequest(reason="all of them", request_id="b-1")
        assert await shop.sagas.CompensateSagas(bulk) == sagas_pb.CompensateSagasResponse()
        assert await retry_all(shop, reason="PAYMENT_EXPIRED") == []
        assert await retry_all(shop, step="create_shipment") == []
        assert await retry_all(shop, created_before=saga.create_time) == []
        stuck = (await shop.sagas.ListSagas(sagas_pb.ListSagasRequest(stuck=True))).sagas
        assert [one.saga_id for one in stuck] == [saga.saga_id]
        found = await retry_all(shop, reason="PAYMENT_DECLINED", step="capture_payment", created_after=saga.create_time)
        assert found == [saga.saga_id]
        assert not (await shop.sagas.ListSagas(sagas_pb.ListSagasRequest(stuck=True))).sagas
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
        steps = Steps(denied, shop.delivery, shop.payments, shop.shipments)
        order = an_order()
        saga = Saga(id="saga-1", order_id=order.id, next_attempt_time=order.create_time, deadline=order.create_time)
        assert await steps.execute(Claim(saga, order, "tok_ok")) == Unknown("CALLER_DENIED")
    async with client_for(shop.addresses["svc_inventory"], InventoryServiceStub, caller="svc_order") as allowed:
        steps = Steps(allowed, shop.delivery, shop.payments, shop.shipments)
        unreadable = an_order(id="no such id", reservation_id="no such id")
        assert await steps.execute(Claim(saga, unreadable, "tok_ok")) == Refused("INVALID_REQUEST")
        confirming = replace(saga, step=Step.CONFIRM_RESERVATION)
        assert await steps.execute(Claim(confirming, order, "tok_ok")) == Refused("RESERVATION_NOT_FOUND")


async def test_a_released_reservation_refuses_the_step_that_made_it(shop):
    async with client_for(shop.addresses["svc_inventory"], InventoryServiceStub, caller="svc_order") as inventory:
        steps = Steps(inventory, shop.delivery, shop.payments, shop.shipments)
        prices = {"shirt": a_price("shirt")}
        order = an_order(totals=quote(price_lines([("shirt", 1)], prices, "THB"), "THB", 0, 0))
        forth = Saga(id="saga-1", order_id=order.id, next_attempt_time=order.create_time, deadline=order.create_time)
        back = replace(forth, state=SagaState.COMPENSATING)
        never_made = an_order(reservation_id="reservation-2", totals=order.totals)
        assert await steps.execute(Claim(back, never_made, "tok_ok")) == Done()
        assert await steps.execute(Claim(forth, never_made, "tok_ok")) == Refused("RESERVATION_STATE_CONFLICT")
        assert [await steps.execute(Claim(forth, order, "tok_ok")) for _ in range(2)] == [Done(), Done()]
        assert await steps.execute(Claim(back, order, "tok_ok")) == Done()
        assert await steps.execute(Claim(forth, order, "tok_ok")) == Refused("RESERVATION_EXPIRED")
