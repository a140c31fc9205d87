"""Answers that are lost, late or wrong: nothing is done twice, nothing is forgotten, and a void wins."""

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest

from chassis import OutcomeUnknown
from chassis.testing import client_for, serving
from shop.payment.v1 import payment_service_pb2 as pb
from shop.payment.v1.payment_errors import PaymentDeclined, PaymentStateConflict, RefundExceedsCapture
from shop.payment.v1.payment_service_pb2_grpc import PaymentServiceStub
from svc_payment.__main__ import compose
from tests.integration.svc_payment.orders import (
    authorize,
    capture,
    eventually,
    insist,
    of_order,
    refund,
    sums,
    void,
)

#: Answers that are lost after the thing was done.
LOST = ["500_then_charged", "timeout_then_charged"]


@pytest.fixture
def another(settings, issuer, road):
    """One more process's worth of the service, on the same database: `async with another(**settings) as payments`."""

    @asynccontextmanager
    async def another(**changes):
        async with (
            serving("svc_payment", replace(settings, **changes), compose, issuer) as app,
            client_for(app.address, PaymentServiceStub, "shop.payment.v1.PaymentService", caller="svc_order") as stub,
        ):
            road.address = app.address
            yield stub

    return another


@pytest.mark.parametrize("trouble", LOST)
async def test_an_authorization_whose_answer_was_lost_is_found(payments, books, payment_id, trouble):
    payment = await insist(lambda: payments.AuthorizePayment(authorize(payment_id, f"tok_{trouble}")))
    assert payment.state == pb.PAYMENT_STATE_AUTHORIZED
    assert await books.ledger(payment_id) == [("authorized", 1200)]
    assert await books.events(payment_id) == ["Started", "Authorized"]
    await books.check(payment_id)


async def test_what_nobody_asks_about_again_is_settled_all_the_same(payments, provider, books, payment_id):
    await provider.misbehave(next=["authorize_500"] * 3)
    with pytest.raises(OutcomeUnknown):
        await payments.AuthorizePayment(authorize(payment_id))
    await books.until_settled(payment_id, "AUTHORIZED")
    await books.check(payment_id)


async def test_a_repeated_request_is_attempted_at_once(another, provider, books, payment_id):
    """The client repeats it: the channel retries what is idempotent. The worker does not poll here."""
    async with another(reconcile_seconds=3600) as payments:
        await provider.misbehave(next=["authorize_500"])
        assert (await payments.AuthorizePayment(authorize(payment_id))).state == pb.PAYMENT_STATE_AUTHORIZED
    await books.check(payment_id)


async def test_reading_a_processing_payment_of_an_order_attempts_it_at_once(another, provider, books, payment_id):
    async with another(reconcile_seconds=3600) as payments:
        await provider.misbehave(next=["authorize_500"] * 3)
        with pytest.raises(OutcomeUnknown):
            await payments.AuthorizePayment(authorize(payment_id))
        assert (await payments.GetPaymentByOrder(of_order(payment_id))).state == pb.PAYMENT_STATE_AUTHORIZED
    await books.check(payment_id)


async def test_an_answer_that_stays_unknown_leaves_the_payment_processing(payments, books, payment_id):
    with pytest.raises(OutcomeUnknown):
        await payments.AuthorizePayment(authorize(payment_id, "tok_500"))
    payment = await payments.GetPaymentByOrder(of_order(payment_id))
    assert (payment.state, sums(payment)) == (pb.PAYMENT_STATE_PROCESSING, (0, 0, 0))
    assert await books.rows.fetchval("SELECT last_error FROM payment") == "http_500"
    assert await books.events(payment_id) == ["Started"]
    with pytest.raises(PaymentStateConflict):
        await payments.CapturePayment(capture(payment_id))


async def test_attempts_come_at_growing_intervals(payments, books, payment_id):
    with pytest.raises(OutcomeUnknown):
        await payments.AuthorizePayment(authorize(payment_id, "tok_500"))
    await books.rows.execute("UPDATE payment SET attempts = 9, next_attempt_time = now()")

    async def tried_again():
        return await books.rows.fetchval("SELECT attempts FROM payment") == 10

    await eventually(tried_again)

    async def put_off():
        return await books.rows.fetchval("SELECT next_attempt_time > now() + interval '25 seconds' FROM payment")

    await eventually(put_off)


async def test_a_success_later_than_everybodys_patience_is_learned(payments, provider, books, payment_id):
    with pytest.raises(OutcomeUnknown):
        await payments.AuthorizePayment(authorize(payment_id, "tok_500"))
    await provider.hear(payment_id)
    await books.until_settled(payment_id, "AUTHORIZED")
    await books.check(payment_id)


async def abandoned(call, books, payment_id, kind):
    """Hang up on a call when it has written down what it asks of the provider."""
    calling = asyncio.create_task(call)
    asked = "SELECT true FROM entry WHERE payment_id = $1 AND kind = $2"
    await eventually(lambda: books.rows.fetchval(asked, payment_id, kind))
    calling.cancel()
    with suppress(asyncio.CancelledError):
        await calling


async def test_a_caller_that_does_not_wait_loses_nothing(payments, books, payment_id):
    await abandoned(
        payments.AuthorizePayment(authorize(payment_id, "tok_slow_1000")), books, payment_id, "AUTHORIZATION"
    )
    await books.until_settled(payment_id, "AUTHORIZED")
    assert await books.ledger(payment_id) == [("authorized", 1200)]


@pytest.mark.parametrize("trouble", LOST)
async def test_a_capture_whose_answer_was_lost_is_made_once(payments, books, payment_id, trouble):
    await payments.AuthorizePayment(authorize(payment_id, f"tok_capture_{trouble}"))
    payment = await insist(lambda: payments.CapturePayment(capture(payment_id, request_id="r-1")))
    assert (payment.state, sums(payment)) == (pb.PAYMENT_STATE_CAPTURED, (1200, 1200, 0))
    assert await books.ledger(payment_id) == [("authorized", 1200), ("captured", 1200)]
    await books.check(payment_id)


@pytest.mark.parametrize("trouble", LOST)
async def test_a_refund_whose_answer_was_lost_is_made_once(payments, give_back, books, payment_id, trouble):
    await payments.AuthorizePayment(authorize(payment_id, f"tok_refund_{trouble}"))
    await payments.CapturePayment(capture(payment_id))
    payment = await insist(lambda: give_back(refund(payment_id, 500, "r-1")))
    assert sums(payment) == (1200, 1200, 500)
    assert await books.ledger(payment_id) == [("authorized", 1200), ("captured", 1200), ("refunded", 500)]
    await books.check(payment_id)


async def test_a_refund_that_is_pending_keeps_its_amount_from_others(payments, give_back, books, payment_id):
    await payments.AuthorizePayment(authorize(payment_id, "tok_refund_500"))
    await payments.CapturePayment(capture(payment_id))
    with pytest.raises(OutcomeUnknown):
        await give_back(refund(payment_id, 700))
    with pytest.raises(RefundExceedsCapture) as refusal:
        await give_back(refund(payment_id, 501))
    assert refusal.value.metadata["refundable"] == "500 minor units of USD"
    assert await books.state(payment_id) == "CAPTURED"


async def test_a_capture_that_is_declined_is_refused_and_leaves_the_authorization(payments, books, payment_id):
    await payments.AuthorizePayment(authorize(payment_id, "tok_capture_declined"))
    for request_id in ("r-1", "r-1", "r-2"):
        with pytest.raises(PaymentDeclined) as refusal:
            await payments.CapturePayment(capture(payment_id, request_id=request_id))
        assert refusal.value.metadata == {"decline_code": "card_declined"}
    payment = await payments.GetPaymentByOrder(of_order(payment_id))
    assert payment.state == pb.PAYMENT_STATE_AUTHORIZED
    outcomes = [one.outcome for one in payment.transactions if one.kind == pb.TRANSACTION_KIND_CHARGE]
    assert outcomes == [pb.TRANSACTION_OUTCOME_REQUEST, pb.TRANSACTION_OUTCOME_FAILURE] * 2
    await books.check(payment_id)


async def test_what_the_provider_refuses_because_it_was_changed_there_is_learned(payments, provider, books, payment_id):
    await payments.AuthorizePayment(authorize(payment_id))
    await provider.act(payment_id, "void")
    with pytest.raises(PaymentDeclined) as refusal:
        await payments.CapturePayment(capture(payment_id))
    assert refusal.value.metadata == {"decline_code": "payment_not_capturable"}
    assert await books.state(payment_id) == "VOIDED"
    await books.check(payment_id)


@pytest.mark.parametrize("trouble", ["wrong_amount", "wrong_currency"])
async def test_an_authorization_of_something_else_is_not_believed_and_let_go(payments, books, payment_id, trouble):
    with pytest.raises(PaymentDeclined) as refusal:
        await insist(lambda: payments.AuthorizePayment(authorize(payment_id, f"tok_{trouble}")))
    assert refusal.value.metadata == {"decline_code": "answer_mismatch"}
    assert [kind for kind, _ in await books.ledger(payment_id)] == ["authorized", "voided"]
    assert await books.events(payment_id) == ["Started", "Failed"]


async def test_a_capture_of_another_amount_is_parked_for_people(payments, books, payment_id):
    await payments.AuthorizePayment(authorize(payment_id, "tok_capture_wrong_amount"))
    with pytest.raises(OutcomeUnknown):
        await payments.CapturePayment(capture(payment_id))
    assert await books.rows.fetchval("SELECT last_error FROM payment") == "answer_mismatch"
    assert await books.rows.fetchval("SELECT next_attempt_time IS NOT NULL FROM payment")
    payment = await payments.GetPaymentByOrder(of_order(payment_id))
    assert (payment.state, sums(payment)) == (pb.PAYMENT_STATE_AUTHORIZED, (1200, 0, 0))


async def test_a_void_wins_over_an_authorization_under_way(payments, provider, books, payment_id):
    with pytest.raises(OutcomeUnknown):
        await payments.AuthorizePayment(authorize(payment_id, "tok_500"))
    assert (await payments.VoidPayment(void(payment_id))).state == pb.PAYMENT_STATE_PROCESSING
    with pytest.raises(OutcomeUnknown):
        await payments.AuthorizePayment(authorize(payment_id, "tok_500"))
    await provider.hear(payment_id)
    await books.until_settled(payment_id, "VOIDED")
    assert await books.ledger(payment_id) == [("authorized", 1200), ("voided", 1200)]
    assert await books.events(payment_id) == ["Started", "Voided"], "never was it authorized for anyone"
    await books.check(payment_id)


async def test_a_late_success_of_a_payment_that_was_closed_is_voided_at_the_provider(another, road, books, payment_id):
    async with another(payment_arrival_seconds=0) as payments:
        with pytest.raises(OutcomeUnknown):
            await payments.AuthorizePayment(authorize(payment_id, "tok_500"))
        assert (await payments.VoidPayment(void(payment_id))).state == pb.PAYMENT_STATE_VOIDED
        road.open = True
        await books.provider.hear(payment_id)
        await road.until(payment_id, "payment.voided")
        await books.until_settled(payment_id, "VOIDED")
    assert await books.ledger(payment_id) == [("authorized", 1200), ("voided", 1200)]
    assert await books.events(payment_id) == ["Started", "Voided"]
    await books.check(payment_id)


async def test_a_payment_that_never_reached_the_provider_is_voided_in_the_end(payments, books, payment_id):
    with pytest.raises(OutcomeUnknown):
        await payments.AuthorizePayment(authorize(payment_id, "tok_500"))
    assert (await payments.VoidPayment(void(payment_id))).state == pb.PAYMENT_STATE_PROCESSING
    await books.rows.execute("UPDATE payment SET void_request_time = now() - interval '1 hour'")
    await books.until_settled(payment_id, "VOIDED")
    assert await books.ledger(payment_id) == []
    await books.check(payment_id)


async def test_a_void_of_a_payment_that_is_declined_ends_declined(payments, provider, books, payment_id):
    await provider.misbehave(next=["authorize_500"] * 3)
    with pytest.raises(OutcomeUnknown):
        await payments.AuthorizePayment(authorize(payment_id, "tok_declined"))
    await books.until_settled(payment_id, "FAILED")
    assert (await payments.VoidPayment(void(payment_id))).state == pb.PAYMENT_STATE_FAILED


@pytest.mark.parametrize("trouble", [*LOST, "slow_2500"])
async def test_a_void_whose_answer_is_lost_or_late_is_accepted_and_made_once(payments, books, payment_id, trouble):
    await payments.AuthorizePayment(authorize(payment_id, f"tok_void_{trouble}"))
    await payments.VoidPayment(void(payment_id))
    await books.until_settled(payment_id, "VOIDED")
    assert await books.ledger(payment_id) == [("authorized", 1200), ("voided", 1200)]
    await books.check(payment_id)


async def test_a_void_that_is_refused_is_asked_for_again(payments, provider, books, payment_id):
    await payments.AuthorizePayment(authorize(payment_id))
    await provider.misbehave(next=["void_declined", "void_declined"])
    assert (await payments.VoidPayment(void(payment_id))).state == pb.PAYMENT_STATE_AUTHORIZED
    await books.until_settled(payment_id, "VOIDED")
    await books.check(payment_id)


async def test_a_void_after_a_capture_of_unknown_outcome_gives_back_what_was_captured(payments, books, payment_id):
    await payments.AuthorizePayment(authorize(payment_id, "tok_capture_slow_1000"))
    await abandoned(payments.CapturePayment(capture(payment_id)), books, payment_id, "CHARGE")
    await payments.VoidPayment(void(payment_id))
    await books.until_settled(payment_id, "REFUNDED")
    await books.check(payment_id)


async def test_a_provider_that_is_away_is_asked_when_it_is_back(another, settings, books, payment_id):
    async with another(payment_provider_url="http://127.0.0.1:9") as payments:
        with pytest.raises(OutcomeUnknown):
            await payments.AuthorizePayment(authorize(payment_id))
    async with another() as payments:
        await books.until_settled(payment_id, "AUTHORIZED")
        assert (await payments.GetPaymentByOrder(of_order(payment_id))).state == pb.PAYMENT_STATE_AUTHORIZED


async def test_a_database_that_breaks_every_connection_delays_settling_and_no_more(
    payments, provider, books, payment_id
):
    await provider.misbehave(next=["authorize_500"] * 3)
    with pytest.raises(OutcomeUnknown):
        await payments.AuthorizePayment(authorize(payment_id))
    for _ in range(3):
        await books.rows.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    await books.until_settled(payment_id, "AUTHORIZED")
    await insist(lambda: payments.CapturePayment(capture(payment_id)))
    await books.check(payment_id)


async def test_a_key_that_the_provider_refuses_says_nothing_about_the_card(another, books, payment_id):
    async with another(payment_provider_key="old-key") as payments:
        with pytest.raises(OutcomeUnknown):
            await payments.AuthorizePayment(authorize(payment_id))
        assert await books.state(payment_id) == "PROCESSING"


async def test_through_a_day_of_bad_luck_two_processes_keep_true_books(another, provider, books, payment_id):
    """Every third request fails or its answer is lost; half of all orders are given up; all are settled, each once."""
    await provider.misbehave(error_rate=0.2, lost_answer_rate=0.2, decline_rate=0.1, seed=4)
    names = [f"{payment_id}-{number}" for number in range(24)]

    async def order(stub, name, number):
        try:
            await insist(lambda: stub.AuthorizePayment(authorize(name)))
            if number % 2:
                await insist(lambda: stub.CapturePayment(capture(name, 1000, request_id=f"{number}-capture")))
        except PaymentDeclined:
            return
        if number % 4 > 1:
            await insist(lambda: stub.VoidPayment(void(name, f"{number}-void")))

    async with another() as one, another() as two:
        stubs = [one, two]
        await asyncio.gather(*(order(stubs[number // 4 % 2], name, number) for number, name in enumerate(names)))
        ends = ["AUTHORIZED", "CAPTURED", "VOIDED", "REFUNDED"]
        for number, name in enumerate(names):
            declined = ("failed", 1200) in await books.ledger(name)
            await books.until_settled(name, "FAILED" if declined else ends[number % 4])
    await books.check(*names)
