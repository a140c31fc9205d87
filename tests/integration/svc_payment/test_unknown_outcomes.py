"""Replies that are lost, late or wrong: nothing is executed twice, nothing is lost, and a void prevails."""

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest

from chassis.testing import client_for, serving
from chassis.types.money import minor_units
from shop.payment.v1 import payment_service_pb2 as pb
from shop.payment.v1.payment_errors import PaymentDeclined, PaymentStateConflict, RefundExceedsCapture
from shop.payment.v1.payment_service_pb2_grpc import PaymentServiceStub
from svc_payment.__main__ import compose
from tests.integration.svc_payment.requests import (
    authorize,
    capture,
    eventually,
    of_order,
    refund,
    sums,
    until_known,
    void,
)

#: Faults that lose the reply after the effect.
LOST = ["500_then_charged", "timeout_then_charged"]


@pytest.fixture
def another(settings, issuer, webhook_endpoint):
    """Serve the service once more on the same database: `async with another(**settings) as payments`."""

    @asynccontextmanager
    async def another(**changes):
        async with (
            serving("svc_payment", replace(settings, **changes), compose, issuer) as app,
            client_for(app.address, PaymentServiceStub, caller="svc_order") as stub,
        ):
            webhook_endpoint.address = app.address
            yield stub

    return another


@pytest.mark.parametrize("fault", LOST)
async def test_an_authorization_whose_reply_was_lost_is_found(payments, books, payment_id, fault):
    payment = await until_known(lambda: payments.AuthorizePayment(authorize(payment_id, f"tok_{fault}")))
    assert payment.state == pb.PAYMENT_STATE_AUTHORIZED
    assert await books.ledger(payment_id) == [("authorized", 1200)]
    assert await books.events(payment_id) == ["Started", "Authorized"]
    await books.check(payment_id)


async def test_a_payment_whose_request_is_not_repeated_is_settled_by_the_worker(payments, provider, books, payment_id):
    await provider.set_faults(next=["authorize_500"] * 3)
    assert (await payments.AuthorizePayment(authorize(payment_id))).state == pb.PAYMENT_STATE_PROCESSING
    await books.until_settled(payment_id, "AUTHORIZED")
    await books.check(payment_id)


DUE = "UPDATE payment SET next_attempt_time = now()"


async def test_repeated_calls_are_attempted_when_the_next_attempt_is_due_and_not_before(
    another, provider, books, payment_id
):
    """The worker does not poll here."""
    async with another(reconcile_seconds=3600) as payments:
        await provider.set_faults(next=["authorize_500"])
        for request_id in ("r-1", "r-1", "r-2", "r-3"):
            payment = await payments.AuthorizePayment(authorize(payment_id, request_id=request_id))
            assert payment.state == pb.PAYMENT_STATE_PROCESSING
        assert (await payments.GetPaymentByOrder(of_order(payment_id))).state == pb.PAYMENT_STATE_PROCESSING
        assert await books.rows.fetchval("SELECT attempts FROM payment") == 1
        await books.rows.execute(DUE)
        assert (await payments.AuthorizePayment(authorize(payment_id))).state == pb.PAYMENT_STATE_AUTHORIZED
    await books.check(payment_id)


async def test_reading_a_processing_payment_of_an_order_attempts_it_when_it_is_due(
    another, provider, books, payment_id
):
    async with another(reconcile_seconds=3600) as payments:
        await provider.set_faults(next=["authorize_500"])
        await payments.AuthorizePayment(authorize(payment_id))
        await books.rows.execute(DUE)
        assert (await payments.GetPaymentByOrder(of_order(payment_id))).state == pb.PAYMENT_STATE_AUTHORIZED
    await books.check(payment_id)


async def test_a_result_that_stays_unknown_leaves_the_payment_processing(payments, books, payment_id):
    assert (await payments.AuthorizePayment(authorize(payment_id, "tok_500"))).state == pb.PAYMENT_STATE_PROCESSING
    payment = await payments.GetPaymentByOrder(of_order(payment_id))
    assert (payment.state, sums(payment)) == (pb.PAYMENT_STATE_PROCESSING, (0, 0, 0))
    assert await books.rows.fetchval("SELECT last_error FROM payment") == "http_500"
    assert await books.events(payment_id) == ["Started"]
    with pytest.raises(PaymentStateConflict):
        await payments.CapturePayment(capture(payment_id))


async def test_attempts_come_at_growing_intervals(payments, books, payment_id):
    assert (await payments.AuthorizePayment(authorize(payment_id, "tok_500"))).state == pb.PAYMENT_STATE_PROCESSING
    await books.rows.execute("UPDATE payment SET attempts = 9, next_attempt_time = now()")

    async def tried_again():
        return await books.rows.fetchval("SELECT attempts FROM payment") == 10

    await eventually(tried_again)

    async def put_off():
        return await books.rows.fetchval("SELECT next_attempt_time > now() + interval '12 seconds' FROM payment")

    await eventually(put_off)


async def test_an_authorization_that_arrives_after_the_timeout_is_recorded(payments, provider, books, payment_id):
    assert (await payments.AuthorizePayment(authorize(payment_id, "tok_500"))).state == pb.PAYMENT_STATE_PROCESSING
    await provider.receive_authorization(payment_id)
    await books.until_settled(payment_id, "AUTHORIZED")
    await books.check(payment_id)


async def cancelled_after_request(call, books, payment_id, kind):
    """Cancel a call when its request is in the ledger."""
    calling = asyncio.create_task(call)
    requested = "SELECT true FROM entry WHERE payment_id = $1 AND kind = $2"
    await eventually(lambda: books.rows.fetchval(requested, payment_id, kind))
    calling.cancel()
    with suppress(asyncio.CancelledError):
        await calling


async def test_a_cancelled_call_does_not_cancel_its_authorization(payments, books, payment_id):
    await cancelled_after_request(
        payments.AuthorizePayment(authorize(payment_id, "tok_slow_1000")), books, payment_id, "AUTHORIZATION"
    )
    await books.until_settled(payment_id, "AUTHORIZED")
    assert await books.ledger(payment_id) == [("authorized", 1200)]


@pytest.mark.parametrize("fault", LOST)
async def test_a_capture_whose_reply_was_lost_is_executed_once(payments, books, payment_id, fault):
    await payments.AuthorizePayment(authorize(payment_id, f"tok_capture_{fault}"))
    payment = await until_known(lambda: payments.CapturePayment(capture(payment_id, request_id="r-1")))
    assert (payment.state, sums(payment)) == (pb.PAYMENT_STATE_CAPTURED, (1200, 1200, 0))
    assert await books.ledger(payment_id) == [("authorized", 1200), ("captured", 1200)]
    await books.check(payment_id)


@pytest.mark.parametrize("fault", LOST)
async def test_a_refund_whose_reply_was_lost_is_executed_once(payments, refund_as_staff, books, payment_id, fault):
    await payments.AuthorizePayment(authorize(payment_id, f"tok_refund_{fault}"))
    await payments.CapturePayment(capture(payment_id))
    payment = await until_known(lambda: refund_as_staff(refund(payment_id, 500, "r-1")))
    assert sums(payment) == (1200, 1200, 500)
    assert await books.ledger(payment_id) == [("authorized", 1200), ("captured", 1200), ("refunded", 500)]
    await books.check(payment_id)


async def test_a_pending_refund_reduces_what_others_can_refund(payments, refund_as_staff, books, payment_id):
    await payments.AuthorizePayment(authorize(payment_id, "tok_refund_500"))
    await payments.CapturePayment(capture(payment_id))
    pending = await refund_as_staff(refund(payment_id, 700))
    assert minor_units(pending.pending_refund_amount, "amount") == 700
    with pytest.raises(RefundExceedsCapture) as error:
        await refund_as_staff(refund(payment_id, 501))
    assert error.value.metadata["refundable"] == "500 minor units of USD"
    assert await books.state(payment_id) == "CAPTURED"


async def test_a_declined_capture_is_an_error_and_leaves_the_authorization(payments, books, payment_id):
    await payments.AuthorizePayment(authorize(payment_id, "tok_capture_declined"))
    for request_id in ("r-1", "r-1", "r-2"):
        with pytest.raises(PaymentDeclined) as error:
            await payments.CapturePayment(capture(payment_id, request_id=request_id))
        assert error.value.metadata == {"decline_code": "card_declined"}
    payment = await payments.GetPaymentByOrder(of_order(payment_id))
    assert payment.state == pb.PAYMENT_STATE_AUTHORIZED
    outcomes = [one.outcome for one in payment.transactions if one.kind == pb.TRANSACTION_KIND_CHARGE]
    assert outcomes == [pb.TRANSACTION_OUTCOME_REQUEST, pb.TRANSACTION_OUTCOME_FAILURE] * 2
    await books.check(payment_id)


async def test_a_request_declined_because_of_a_change_at_the_provider_records_that_change(
    payments, provider, books, payment_id
):
    await payments.AuthorizePayment(authorize(payment_id))
    await provider.execute(payment_id, "void")
    with pytest.raises(PaymentDeclined) as error:
        await payments.CapturePayment(capture(payment_id))
    assert error.value.metadata == {"decline_code": "payment_not_capturable"}
    assert await books.state(payment_id) == "VOIDED"
    await books.check(payment_id)


@pytest.mark.parametrize("fault", ["wrong_amount", "wrong_currency"])
async def test_an_authorization_that_does_not_match_is_voided_and_declined(payments, books, payment_id, fault):
    with pytest.raises(PaymentDeclined) as error:
        await until_known(lambda: payments.AuthorizePayment(authorize(payment_id, f"tok_{fault}")))
    assert error.value.metadata == {"decline_code": "answer_mismatch"}
    assert [kind for kind, _ in await books.ledger(payment_id)] == ["authorized", "voided"]
    assert await books.events(payment_id) == ["Started", "Failed"]


async def test_a_capture_of_another_amount_stays_unknown_for_an_operator(payments, books, payment_id):
    await payments.AuthorizePayment(authorize(payment_id, "tok_capture_wrong_amount"))
    assert (await payments.CapturePayment(capture(payment_id))).state == pb.PAYMENT_STATE_AUTHORIZED
    assert await books.rows.fetchval("SELECT last_error FROM payment") == "answer_mismatch"
    assert await books.rows.fetchval("SELECT next_attempt_time IS NOT NULL FROM payment")
    payment = await payments.GetPaymentByOrder(of_order(payment_id))
    assert (payment.state, sums(payment)) == (pb.PAYMENT_STATE_AUTHORIZED, (1200, 0, 0))


async def test_a_void_requested_during_an_authorization_voids_it(payments, provider, books, payment_id):
    assert (await payments.AuthorizePayment(authorize(payment_id, "tok_500"))).state == pb.PAYMENT_STATE_PROCESSING
    assert (await payments.VoidPayment(void(payment_id))).state == pb.PAYMENT_STATE_PROCESSING
    assert (await payments.AuthorizePayment(authorize(payment_id, "tok_500"))).state == pb.PAYMENT_STATE_PROCESSING
    await provider.receive_authorization(payment_id)
    await books.until_settled(payment_id, "VOIDED")
    assert await books.ledger(payment_id) == [("authorized", 1200), ("voided", 1200)]
    assert await books.events(payment_id) == ["Started", "Voided"], "it was never published as authorized"
    await books.check(payment_id)


async def test_a_late_success_of_a_payment_that_was_closed_is_voided_at_the_provider(
    another, webhook_endpoint, books, payment_id
):
    async with another(payment_arrival_seconds=0) as payments:
        assert (await payments.AuthorizePayment(authorize(payment_id, "tok_500"))).state == pb.PAYMENT_STATE_PROCESSING
        assert (await payments.VoidPayment(void(payment_id))).state == pb.PAYMENT_STATE_VOIDED
        webhook_endpoint.forwarding = True
        await books.provider.receive_authorization(payment_id)
        await webhook_endpoint.until_received(payment_id, "payment.voided")
        await books.until_settled(payment_id, "VOIDED")
    assert await books.ledger(payment_id) == [("authorized", 1200), ("voided", 1200)]
    assert await books.events(payment_id) == ["Started", "Voided"]
    await books.check(payment_id)


async def test_a_voided_payment_that_never_reached_the_provider_becomes_voided(payments, books, payment_id):
    assert (await payments.AuthorizePayment(authorize(payment_id, "tok_500"))).state == pb.PAYMENT_STATE_PROCESSING
    assert (await payments.VoidPayment(void(payment_id))).state == pb.PAYMENT_STATE_PROCESSING
    await books.rows.execute("UPDATE payment SET void_request_time = now() - interval '1 hour'")
    await books.until_settled(payment_id, "VOIDED")
    assert await books.ledger(payment_id) == []
    await books.check(payment_id)


async def test_a_void_of_a_declined_payment_leaves_it_failed(payments, provider, books, payment_id):
    await provider.set_faults(next=["authorize_500"] * 3)
    assert (await payments.AuthorizePayment(authorize(payment_id, "tok_declined"))).state == pb.PAYMENT_STATE_PROCESSING
    await books.until_settled(payment_id, "FAILED")
    assert (await payments.VoidPayment(void(payment_id))).state == pb.PAYMENT_STATE_FAILED


@pytest.mark.parametrize("fault", [*LOST, "slow_2500"])
async def test_a_void_whose_reply_is_lost_or_late_is_executed_once(payments, books, payment_id, fault):
    await payments.AuthorizePayment(authorize(payment_id, f"tok_void_{fault}"))
    await payments.VoidPayment(void(payment_id))
    await books.until_settled(payment_id, "VOIDED")
    assert await books.ledger(payment_id) == [("authorized", 1200), ("voided", 1200)]
    await books.check(payment_id)


async def test_a_declined_void_is_requested_again(payments, provider, books, payment_id):
    await payments.AuthorizePayment(authorize(payment_id))
    await provider.set_faults(next=["void_declined", "void_declined"])
    assert (await payments.VoidPayment(void(payment_id))).state == pb.PAYMENT_STATE_AUTHORIZED
    await books.until_settled(payment_id, "VOIDED")
    await books.check(payment_id)


async def test_a_void_after_a_capture_with_an_unknown_result_refunds_what_was_captured(payments, books, payment_id):
    await payments.AuthorizePayment(authorize(payment_id, "tok_capture_slow_1000"))
    await cancelled_after_request(payments.CapturePayment(capture(payment_id)), books, payment_id, "CHARGE")
    await payments.VoidPayment(void(payment_id))
    await books.until_settled(payment_id, "REFUNDED")
    await books.check(payment_id)


async def test_an_unreachable_provider_is_called_again_by_a_later_process(another, settings, books, payment_id):
    async with another(payment_provider_url="http://127.0.0.1:9") as payments:
        assert (await payments.AuthorizePayment(authorize(payment_id))).state == pb.PAYMENT_STATE_PROCESSING
    async with another() as payments:
        await books.until_settled(payment_id, "AUTHORIZED")
        assert (await payments.GetPaymentByOrder(of_order(payment_id))).state == pb.PAYMENT_STATE_AUTHORIZED


async def test_broken_database_connections_only_delay_a_payment(payments, provider, books, payment_id):
    await provider.set_faults(next=["authorize_500"] * 3)
    assert (await payments.AuthorizePayment(authorize(payment_id))).state == pb.PAYMENT_STATE_PROCESSING
    for _ in range(3):
        await books.rows.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    await books.until_settled(payment_id, "AUTHORIZED")
    await until_known(lambda: payments.CapturePayment(capture(payment_id)))
    await books.check(payment_id)


async def test_a_rejected_api_key_does_not_decline_the_payment(another, books, payment_id):
    async with another(payment_provider_key="old-key") as payments:
        assert (await payments.AuthorizePayment(authorize(payment_id))).state == pb.PAYMENT_STATE_PROCESSING
        assert await books.state(payment_id) == "PROCESSING"


async def test_under_random_faults_two_processes_settle_every_payment_once(another, provider, books, payment_id):
    """Every third request fails or its reply is lost; half of the payments are voided; all are settled, each once."""
    await provider.set_faults(error_rate=0.2, lost_answer_rate=0.2, decline_rate=0.1, seed=4)
    names = [f"{payment_id}-{number}" for number in range(24)]

    async def order(stub, name, number):
        try:
            await until_known(lambda: stub.AuthorizePayment(authorize(name)))
            if number % 2:
                await until_known(lambda: stub.CapturePayment(capture(name, 1000, request_id=f"{number}-capture")))
        except PaymentDeclined:
            return
        if number % 4 > 1:
            await until_known(lambda: stub.VoidPayment(void(name, f"{number}-void")))

    async with another() as one, another() as two:
        stubs = [one, two]
        await asyncio.gather(*(order(stubs[number // 4 % 2], name, number) for number, name in enumerate(names)))
        ends = ["AUTHORIZED", "CAPTURED", "VOIDED", "REFUNDED"]
        for number, name in enumerate(names):
            declined = ("failed", 1200) in await books.ledger(name)
            await books.until_settled(name, "FAILED" if declined else ends[number % 4])
    await books.check(*names)
