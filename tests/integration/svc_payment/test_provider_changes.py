"""Changes that the customer, the bank or the provider's clock make: reported by webhooks, or found by polling."""

from dataclasses import replace

import asyncpg
import grpc
import pytest

from chassis.testing import client_for, serving
from chassis.types.money import minor_units, money
from shop.payment.v1 import payment_service_pb2 as pb
from shop.payment.v1.payment_errors import PaymentDeclined, PaymentIdTaken, PaymentStateConflict
from shop.payment.v1.payment_service_pb2_grpc import PaymentServiceStub
from svc_payment.__main__ import compose
from tests.integration.svc_payment.requests import authorize, capture, eventually, of_order, void
from tests.integration.svc_payment.test_webhooks import signed


@pytest.fixture(params=["webhook", "poll"])
async def payments(request, settings, issuer, webhook_endpoint):
    """The service, which learns of changes by webhooks alone or, when they are lost, by polling alone."""
    by_webhook = request.param == "webhook"
    changed = replace(settings, payment_poll_seconds=3600 if by_webhook else 0.05)
    async with (
        serving("svc_payment", changed, compose, issuer) as app,
        client_for(app.address, PaymentServiceStub, caller="svc_order") as stub,
    ):
        webhook_endpoint.address, webhook_endpoint.forwarding = app.address, by_webhook
        yield stub


async def reach(books, payment_id, state):
    async def reached():
        return await books.state(payment_id) == state

    await eventually(reached)
    await books.until_settled(payment_id, state)


async def act(books, payment_id, action):
    path = f"/v1/payments/{(await books.provider.payment(payment_id))['id']}/actions"
    answer = await books.provider.http.post(path, json={"action": action})
    assert answer.status_code == 200, answer.text


async def answer_as_customer(books, payment, decision):
    answer = await books.provider.http.post(
        payment.action_url, json={"decision": decision}, headers={"authorization": ""}
    )
    assert answer.status_code == 200, answer.text


async def test_a_payment_that_the_customer_confirms_is_authorized(payments, books, payment_id):
    payment = await payments.AuthorizePayment(authorize(payment_id, "tok_3ds"))
    assert payment.state == pb.PAYMENT_STATE_REQUIRES_ACTION
    assert payment.HasField("expire_time")
    await answer_as_customer(books, payment, "confirm")
    await reach(books, payment_id, "AUTHORIZED")
    payment = await payments.CapturePayment(capture(payment_id))
    assert (payment.state, payment.action_url) == (pb.PAYMENT_STATE_CAPTURED, "")
    assert await books.events(payment_id) == ["Started", "ActionRequired", "Authorized", "Captured"]
    payloads = await books.rows.fetchval("SELECT string_agg(payload, '') FROM outbox")
    assert b"/customer/" not in payloads, "the page's address is a secret"
    await books.check(payment_id)


async def test_a_payment_that_the_customer_refuses_is_failed(payments, books, payment_id):
    payment = await payments.AuthorizePayment(authorize(payment_id, "tok_3ds"))
    await answer_as_customer(books, payment, "refuse")
    await reach(books, payment_id, "FAILED")
    with pytest.raises(PaymentDeclined) as error:
        await payments.AuthorizePayment(authorize(payment_id, "tok_3ds"))
    assert error.value.metadata == {"decline_code": "authentication_failed"}
    assert await books.events(payment_id) == ["Started", "ActionRequired", "Failed"]


async def test_a_payment_whose_customer_does_not_act_expires(payments, books, payment_id):
    await payments.AuthorizePayment(authorize(payment_id, "tok_3ds"))
    await act(books, payment_id, "expire")
    await reach(books, payment_id, "EXPIRED")
    assert await books.events(payment_id) == ["Started", "ActionRequired", "Expired"]
    with pytest.raises(PaymentStateConflict):
        await payments.ReauthorizePayment(reauthorize(payment_id))
    await books.check(payment_id)


async def test_a_slip_that_is_paid_later_is_captured(payments, books, payment_id):
    payment = await payments.AuthorizePayment(authorize(payment_id, "tok_konbini"))
    assert payment.state == pb.PAYMENT_STATE_REQUIRES_ACTION
    await act(books, payment_id, "confirm")
    await reach(books, payment_id, "CAPTURED")
    assert await books.events(payment_id) == ["Started", "ActionRequired", "Authorized", "Captured"]
    await books.check(payment_id)


async def test_the_provider_acts_by_its_own_clock(payments, books, payment_id):
    for word, state in (("konbini_expired", "EXPIRED"), ("3ds_confirmed", "AUTHORIZED")):
        await payments.AuthorizePayment(authorize(f"{payment_id}-{word[-3:]}", f"tok_{word}"))
        await reach(books, f"{payment_id}-{word[-3:]}", state)


async def test_a_void_cancels_a_payment_that_waits_for_its_customer(payments, books, payment_id):
    await payments.AuthorizePayment(authorize(payment_id, "tok_3ds"))
    assert (await payments.VoidPayment(void(payment_id))).state == pb.PAYMENT_STATE_VOIDED
    assert await books.ledger(payment_id) == [("requires_action", 1200), ("cancelled", 1200)]
    assert (await books.provider.payment(payment_id))["status"] == "voided"
    await books.until_settled(payment_id, "VOIDED")
    await books.check(payment_id)


def reauthorize(payment_id, request_id="again"):
    return pb.ReauthorizePaymentRequest(payment_id=payment_id, request_id=request_id)


async def test_an_authorization_that_has_expired_is_authorized_anew_and_captured(payments, books, payment_id):
    await payments.AuthorizePayment(authorize(payment_id))
    # When its time has come, as the service knows; a webhook comes at any time.
    await books.rows.execute("UPDATE payment SET expire_time = now(), next_attempt_time = now() + interval '1 second'")
    await act(books, payment_id, "expire")
    await reach(books, payment_id, "EXPIRED")
    payment = await payments.ReauthorizePayment(reauthorize(payment_id))
    assert (payment.state, minor_units(payment.authorized_amount, "amount")) == (pb.PAYMENT_STATE_AUTHORIZED, 1200)
    assert (await payments.ReauthorizePayment(reauthorize(payment_id, "once-more"))).etag == payment.etag
    await payments.CapturePayment(capture(payment_id))
    await books.until_settled(payment_id, "CAPTURED")
    assert await books.events(payment_id) == ["Started", "Authorized", "Expired", "Authorized", "Captured"]
    assert [kind for kind, _ in await books.ledger(payment_id)] == [
        "authorized",
        "expired",
        "reauthorized",
        "captured",
    ]
    await books.check(payment_id)


async def test_a_capture_after_the_authorization_has_expired_is_declined_and_records_the_expiry(
    payments, webhook_endpoint, books, payment_id
):
    await payments.AuthorizePayment(authorize(payment_id))
    webhook_endpoint.forwarding = False
    await act(books, payment_id, "expire")
    with pytest.raises(PaymentDeclined) as error:
        await payments.CapturePayment(capture(payment_id))
    assert error.value.metadata == {"decline_code": "payment_not_capturable"}
    assert await books.state(payment_id) == "EXPIRED"


async def test_a_declined_reauthorization_leaves_the_payment_expired(payments, provider, books, payment_id):
    await payments.AuthorizePayment(authorize(payment_id, "tok_lapsing"))
    await reach(books, payment_id, "EXPIRED")
    await provider.set_faults(next=["reauthorize_declined"])
    with pytest.raises(PaymentDeclined):
        await payments.ReauthorizePayment(reauthorize(payment_id, "r-1"))
    await provider.set_faults(next=["reauthorize_500_then_charged"])
    await payments.ReauthorizePayment(reauthorize(payment_id, "r-2"))
    await reach(books, payment_id, "AUTHORIZED")
    await books.check(payment_id)


@pytest.mark.parametrize(("action", "state"), [("win", "CAPTURED"), ("lose", "CHARGED_BACK")], ids=["won", "lost"])
async def test_a_dispute_is_recorded_with_its_deadline_and_its_end(payments, books, payment_id, action, state):
    await payments.AuthorizePayment(authorize(payment_id))
    await payments.CapturePayment(capture(payment_id))
    await act(books, payment_id, "dispute")
    await reach(books, payment_id, "DISPUTED")
    payment = await payments.GetPaymentByOrder(of_order(payment_id))
    assert payment.HasField("dispute_due_time")
    refund = pb.RefundOrderPaymentRequest(payment_id=payment_id, request_id="r-1")
    with pytest.raises(PaymentStateConflict):
        await payments.RefundOrderPayment(refund)
    await act(books, payment_id, action)
    await reach(books, payment_id, state)
    assert await books.events(payment_id) == ["Started", "Authorized", "Captured", "Disputed", "DisputeClosed"]
    await books.check(payment_id)


async def test_svc_order_refunds_a_part_and_a_repeat_does_so_once(payments, books, payment_id):
    await payments.AuthorizePayment(authorize(payment_id))
    await payments.CapturePayment(capture(payment_id, 1000))
    for request_id in ("r-1", "r-1", "r-2"):
        refund = pb.RefundOrderPaymentRequest(payment_id=payment_id, amount=money(300, "USD"), request_id=request_id)
        payment = await payments.RefundOrderPayment(refund)
    assert minor_units(payment.refunded_amount, "amount") == 600
    await books.check(payment_id)


async def test_an_order_is_paid_again_when_its_former_payment_is_over(payments, books, payment_id):
    order = {"order_id": f"order-of-{payment_id}"}
    with pytest.raises(PaymentDeclined):
        await payments.AuthorizePayment(authorize(payment_id, "tok_declined", **order))
    second = authorize(f"{payment_id}-2", **order)
    assert (await payments.AuthorizePayment(second)).state == pb.PAYMENT_STATE_AUTHORIZED
    assert (await payments.GetPaymentByOrder(of_order(payment_id))).payment_id == f"{payment_id}-2"
    with pytest.raises(PaymentIdTaken):
        await payments.AuthorizePayment(authorize(f"{payment_id}-3", **order))
    with pytest.raises(asyncpg.UniqueViolationError):
        await books.rows.execute("UPDATE payment SET state = 'AUTHORIZED' WHERE payment_id = $1", payment_id)


async def test_a_webhook_whose_fetch_fails_is_not_forgotten(payments, provider, webhook_endpoint, books, payment_id):
    """The provider sent it, and got its answer: it does not send it again."""
    webhook_endpoint.forwarding = False
    await payments.AuthorizePayment(authorize(payment_id))
    await payments.CapturePayment(capture(payment_id))
    await books.until_settled(payment_id, "CAPTURED")
    await books.provider.execute(payment_id, "refunds", amount=300)
    body = await provider.webhook_body(payment_id)
    await provider.set_faults(outage=True)
    assert await webhook_endpoint.deliver(body, signed(body)) is grpc.StatusCode.OK

    async def has_failed():
        return await books.rows.fetchval("SELECT last_error FROM payment") == "http_500"

    await eventually(has_failed)
    await provider.set_faults()
    await reach(books, payment_id, "PARTIALLY_REFUNDED")
