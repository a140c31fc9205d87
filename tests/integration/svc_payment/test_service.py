"""The RPCs of svc_payment, with a provider that replies."""

import asyncio

import asyncpg
import pytest
from google.type.money_pb2 import Money

from chassis.types.money import money
from shop.chassis.v1.chassis_errors import CallerDenied, IdempotencyKeyReused, InvalidRequest, RoleMissing, TokenMissing
from shop.payment.v1 import payment_service_pb2 as pb
from shop.payment.v1.payment_errors import (
    CaptureExceedsAuthorization,
    CurrencyMismatch,
    OrderNotPaidFor,
    PaymentDeclined,
    PaymentIdTaken,
    PaymentMethodInvalid,
    PaymentNotFound,
    PaymentStateConflict,
    RefundExceedsCapture,
)
from svc_payment.store import sql
from tests.integration.svc_payment.requests import (
    authorize,
    capture,
    new_key,
    of_order,
    refund,
    sums,
    void,
)


def validate(token, amount=None):
    return pb.ValidatePaymentMethodRequest(user_id="user-1", payment_method_token=token, amount=amount)


async def test_validating_a_payment_method_returns_its_description(payments):
    method = await payments.ValidatePaymentMethod(validate("tok_ok", money(1200, "USD")))
    assert method == pb.PaymentMethod(kind=pb.PAYMENT_METHOD_KIND_CARD, card_brand="visa", card_last4="4242")


async def test_an_unusable_payment_method_is_an_error_with_the_providers_code(payments):
    for token, problem in (("tok_expired_card", "expired_card"), ("4242424242424242", "payment_method_unknown")):
        with pytest.raises(PaymentMethodInvalid) as error:
            await payments.ValidatePaymentMethod(validate(token))
        assert error.value.metadata == {"problem": problem}


async def test_while_the_provider_fails_validation_returns_what_is_known_of_the_method(payments, provider):
    assert await payments.ValidatePaymentMethod(validate("tok_validate_500")) == pb.PaymentMethod()
    known = await payments.ValidatePaymentMethod(validate("tok_ok"))
    await provider.set_faults(next=["validate_500"])
    assert await payments.ValidatePaymentMethod(validate("tok_ok")) == known


async def test_an_authorization_reserves_the_amount_at_the_provider(payments, books, payment_id):
    await payments.ValidatePaymentMethod(validate("tok_ok"))
    payment = await payments.AuthorizePayment(authorize(payment_id))
    assert (payment.payment_id, payment.user_id, payment.etag) == (payment_id, "user-1", "2")
    assert (payment.state, sums(payment)) == (pb.PAYMENT_STATE_AUTHORIZED, (1200, 0, 0))
    assert payment.method.card_last4 == "4242"
    assert [(one.kind, one.outcome) for one in payment.transactions] == [
        (pb.TRANSACTION_KIND_AUTHORIZATION, pb.TRANSACTION_OUTCOME_REQUEST),
        (pb.TRANSACTION_KIND_AUTHORIZATION, pb.TRANSACTION_OUTCOME_SUCCESS),
    ]
    assert await books.events(payment_id) == ["Started", "Authorized"]
    assert await payments.GetPaymentByOrder(of_order(payment_id)) == payment
    await books.check(payment_id)


async def test_a_repeated_authorization_returns_the_payment_in_its_current_state(payments, books, payment_id):
    first = await payments.AuthorizePayment(authorize(payment_id))
    assert await payments.AuthorizePayment(authorize(payment_id)) == first
    assert await payments.AuthorizePayment(authorize(payment_id, request_id="another")) == first
    await payments.CapturePayment(capture(payment_id))
    again = await payments.AuthorizePayment(authorize(payment_id))
    assert again.state == pb.PAYMENT_STATE_CAPTURED
    assert await books.ledger(payment_id) == [("authorized", 1200), ("captured", 1200)]


async def test_concurrent_authorizations_of_one_payment_authorize_once(payments, books, payment_id):
    requests = [authorize(payment_id, request_id=f"r-{number % 5}") for number in range(20)]
    answers = await asyncio.gather(*map(payments.AuthorizePayment, requests))
    assert {answer.state for answer in answers} == {pb.PAYMENT_STATE_AUTHORIZED}
    assert await books.ledger(payment_id) == [("authorized", 1200)]
    assert await books.events(payment_id) == ["Started", "Authorized"]


async def test_a_payment_id_with_other_contents_and_a_second_payment_of_an_order_are_errors(
    payments, books, payment_id
):
    await payments.AuthorizePayment(authorize(payment_id))
    for change in ({"amount": 1201}, {"user_id": "user-2"}, {"order_id": "order-2"}, {"currency": "EUR"}):
        with pytest.raises(PaymentIdTaken):
            await payments.AuthorizePayment(authorize(payment_id, request_id=new_key(), **change))
    second = authorize(f"{payment_id}-2", order_id=f"order-of-{payment_id}")
    with pytest.raises(PaymentIdTaken):
        await payments.AuthorizePayment(second)
    assert await books.ledger(f"{payment_id}-2") == []


async def test_a_request_id_reused_for_another_request_is_an_error(payments, payment_id):
    await payments.AuthorizePayment(authorize(payment_id, request_id="k"))
    with pytest.raises(IdempotencyKeyReused):
        await payments.AuthorizePayment(authorize(payment_id, amount=1, request_id="k"))
    await payments.CapturePayment(capture(payment_id, 1000, request_id="k"))
    with pytest.raises(IdempotencyKeyReused):
        await payments.CapturePayment(capture(payment_id, 999, request_id="k"))


@pytest.mark.parametrize(
    ("token", "code"),
    [
        ("tok_declined", "card_declined"),
        ("tok_insufficient_funds", "insufficient_funds"),
        ("tok_of_nobody", "payment_method_unknown"),
    ],
)
async def test_a_declined_payment_stays_declined(payments, books, payment_id, token, code):
    for request_id in ("r-1", "r-1", "r-2"):
        with pytest.raises(PaymentDeclined) as error:
            await payments.AuthorizePayment(authorize(payment_id, token, request_id=request_id))
        assert error.value.metadata == {"decline_code": code}
    payment = await payments.GetPaymentByOrder(of_order(payment_id))
    assert (payment.state, payment.decline_code, sums(payment)) == (pb.PAYMENT_STATE_FAILED, code, (0, 0, 0))
    assert await books.events(payment_id) == ["Started", "Failed"]
    assert (await payments.VoidPayment(void(payment_id))).state == pb.PAYMENT_STATE_FAILED
    await books.check(payment_id)


async def test_the_amount_or_a_part_of_it_is_captured_once(payments, books, payment_id):
    await payments.AuthorizePayment(authorize(payment_id))
    first = await payments.CapturePayment(capture(payment_id, 1000))
    assert (first.state, sums(first)) == (pb.PAYMENT_STATE_CAPTURED, (1200, 1000, 0))
    assert await payments.CapturePayment(capture(payment_id)) == first
    assert await payments.CapturePayment(capture(payment_id, 1000)) == first
    with pytest.raises(PaymentStateConflict):
        await payments.CapturePayment(capture(payment_id, 1200))
    assert await books.events(payment_id) == ["Started", "Authorized", "Captured"]
    await books.check(payment_id)


async def test_concurrent_captures_capture_once(payments, books, payment_id):
    await payments.AuthorizePayment(authorize(payment_id))
    answers = await asyncio.gather(*(payments.CapturePayment(capture(payment_id)) for _ in range(10)))
    assert {answer.state for answer in answers} == {pb.PAYMENT_STATE_CAPTURED}
    assert await books.ledger(payment_id) == [("authorized", 1200), ("captured", 1200)]
    await books.check(payment_id)


async def test_a_capture_above_the_authorization_or_in_another_currency_is_an_error(payments, payment_id):
    await payments.AuthorizePayment(authorize(payment_id))
    with pytest.raises(CaptureExceedsAuthorization):
        await payments.CapturePayment(capture(payment_id, 1201))
    with pytest.raises(CurrencyMismatch):
        await payments.CapturePayment(capture(payment_id, 1200, currency="EUR"))


async def test_requests_in_the_wrong_state_are_errors(payments, public_payments, staff, payment_id):
    with pytest.raises(PaymentNotFound):
        await payments.CapturePayment(capture(payment_id))
    await payments.AuthorizePayment(authorize(payment_id))
    with staff(), pytest.raises(PaymentStateConflict):
        await public_payments.RefundPayment(refund(payment_id))
    await payments.VoidPayment(void(payment_id))
    with pytest.raises(PaymentStateConflict):
        await payments.CapturePayment(capture(payment_id))
    with staff(), pytest.raises(PaymentStateConflict):
        await public_payments.RefundPayment(refund(payment_id))


async def test_a_void_releases_an_authorization_once(payments, books, payment_id):
    await payments.AuthorizePayment(authorize(payment_id))
    voided = await payments.VoidPayment(void(payment_id, "r-1"))
    assert voided.state == pb.PAYMENT_STATE_VOIDED
    assert voided.transactions[-1].kind == pb.TRANSACTION_KIND_CANCEL
    assert [one.reason for one in voided.transactions if one.reason] == ["order cancelled"]
    for request_id in ("r-1", "r-2"):
        assert await payments.VoidPayment(void(payment_id, request_id)) == voided
    assert await books.ledger(payment_id) == [("authorized", 1200), ("voided", 1200)]
    assert await books.events(payment_id) == ["Started", "Authorized", "Voided"]
    assert (await payments.AuthorizePayment(authorize(payment_id))).state == pb.PAYMENT_STATE_VOIDED
    await books.check(payment_id)


async def test_a_void_of_a_captured_payment_refunds_it_in_full(payments, public_payments, staff, books, payment_id):
    await payments.AuthorizePayment(authorize(payment_id))
    await payments.CapturePayment(capture(payment_id, 1000))
    with staff():
        await public_payments.RefundPayment(refund(payment_id, 300))
    given_back = await payments.VoidPayment(void(payment_id))
    assert (given_back.state, sums(given_back)) == (pb.PAYMENT_STATE_REFUNDED, (1200, 1000, 1000))
    await books.check(payment_id)


async def test_a_payment_voided_before_it_is_started_cannot_be_started(payments, books, payment_id):
    for request_id in ("r-1", "r-1", "r-2"):
        with pytest.raises(PaymentNotFound):
            await payments.VoidPayment(void(payment_id, request_id))
    with pytest.raises(PaymentStateConflict) as error:
        await payments.AuthorizePayment(authorize(payment_id))
    assert error.value.metadata["state"] == "GIVEN_UP"
    assert await books.ledger(payment_id) == []
    with pytest.raises(OrderNotPaidFor):
        await payments.GetPaymentByOrder(of_order(payment_id))


async def test_a_concurrent_void_and_authorization_leave_no_funds_held(payments, books, payment_id):
    names = [f"{payment_id}-{number}" for number in range(10)]
    calls = [
        call
        for name in names
        for call in (payments.AuthorizePayment(authorize(name)), payments.VoidPayment(void(name)))
    ]
    await asyncio.gather(*calls, return_exceptions=True)
    # A payment voided before its authorization was sent is closed when no request can be under way any more.
    await books.rows.execute("UPDATE payment SET void_request_time = void_request_time - interval '1 hour'")
    for name in names:
        if await books.state(name) is not None:
            await books.until_settled(name, "VOIDED")
        assert [kind for kind, _ in await books.ledger(name)] in ([], ["authorized", "voided"])


async def test_refunds_come_in_parts_up_to_what_was_captured(payments, public_payments, staff, books, payment_id):
    await payments.AuthorizePayment(authorize(payment_id))
    await payments.CapturePayment(capture(payment_id, 1000))
    with staff():
        part = await public_payments.RefundPayment(refund(payment_id, 400, "r-1"))
        assert (part.state, sums(part)) == (pb.PAYMENT_STATE_PARTIALLY_REFUNDED, (1200, 1000, 400))
        assert await public_payments.RefundPayment(refund(payment_id, 400, "r-1")) == part
        with pytest.raises(RefundExceedsCapture) as error:
            await public_payments.RefundPayment(refund(payment_id, 601))
        assert error.value.metadata == {"refundable": "600 minor units of USD", "refunded": "400 minor units of USD"}
        rest = await public_payments.RefundPayment(refund(payment_id))
        assert (rest.state, sums(rest)) == (pb.PAYMENT_STATE_REFUNDED, (1200, 1000, 1000))
        with pytest.raises(RefundExceedsCapture):
            await public_payments.RefundPayment(refund(payment_id))
        with pytest.raises(CurrencyMismatch):
            await public_payments.RefundPayment(refund(payment_id, 1, currency="EUR"))
    assert await books.events(payment_id) == ["Started", "Authorized", "Captured", "Refunded", "Refunded"]
    assert [one.reason for one in rest.transactions if one.reason] == ["came broken", "came broken"]
    await books.check(payment_id)


async def test_concurrent_refunds_refund_no_more_than_was_captured(payments, public_payments, staff, books, payment_id):
    await payments.AuthorizePayment(authorize(payment_id))
    await payments.CapturePayment(capture(payment_id, 500))

    async def refund_as_staff():
        try:
            await public_payments.RefundPayment(refund(payment_id, 100))
        except RefundExceedsCapture:
            return False
        return True

    with staff():
        given = await asyncio.gather(*(refund_as_staff() for _ in range(12)))
    assert sum(given) == 5
    assert await books.state(payment_id) == "REFUNDED"
    await books.check(payment_id)


async def test_yen_have_no_minor_unit_and_a_fraction_of_a_minor_unit_is_invalid(payments, provider, payment_id):
    payment = await payments.AuthorizePayment(authorize(payment_id, amount=500, currency="JPY"))
    assert payment.amount == Money(currency_code="JPY", units=500)
    assert (await provider.payment(payment_id))["amount"] == 500
    for amount in (Money(currency_code="JPY", units=1, nanos=500_000_000), Money(currency_code="USD", nanos=5_000_000)):
        request = authorize(f"{payment_id}-2")
        request.amount.CopyFrom(amount)
        with pytest.raises(InvalidRequest) as error:
            await payments.AuthorizePayment(request)
        assert error.value.metadata["field"] == "amount"


@pytest.mark.parametrize(
    "amount",
    [
        Money(currency_code="USD", units=0),
        Money(currency_code="USD", units=-1),
        Money(currency_code="USD", units=1, nanos=-1),
        Money(currency_code="USD", units=2**63 - 1),
        Money(currency_code="usd", units=1),
        Money(units=1),
    ],
)
async def test_an_invalid_amount_is_an_error_and_nothing_is_written(payments, books, payment_id, amount):
    request = authorize(payment_id)
    request.amount.CopyFrom(amount)
    with pytest.raises(InvalidRequest) as error:
        await payments.AuthorizePayment(request)
    assert error.value.metadata["field"] == "amount"
    assert await books.rows.fetchval("SELECT count(*) FROM payment") == 0


async def test_a_payment_is_visible_to_its_user_and_staff_alone(payments, public_payments, customer, staff, payment_id):
    payment = await payments.AuthorizePayment(authorize(payment_id))
    request = pb.GetPaymentRequest(payment_id=payment_id)
    with customer():
        assert await public_payments.GetPayment(request) == payment
    with staff():
        assert await public_payments.GetPayment(request) == payment
    with customer("user-2"), pytest.raises(PaymentNotFound) as foreign:
        await public_payments.GetPayment(request)
    with customer(), pytest.raises(PaymentNotFound) as absent:
        await public_payments.GetPayment(pb.GetPaymentRequest(payment_id="payment-0"))
    assert foreign.value.message.replace(payment_id, "payment-0") == absent.value.message
    with customer("user-2"), pytest.raises(PaymentNotFound):
        await anext(public_payments.WatchPayment(pb.WatchPaymentRequest(payment_id=payment_id)))


async def test_the_contract_decides_who_may_call(payments, public_payments, customer, payment_id):
    for call in (
        public_payments.AuthorizePayment(authorize(payment_id)),
        public_payments.VoidPayment(void(payment_id)),
    ):
        with pytest.raises(CallerDenied):
            await call
    with pytest.raises(CallerDenied):
        await payments.RefundPayment(refund(payment_id))
    with pytest.raises(TokenMissing):
        await public_payments.GetPayment(pb.GetPaymentRequest(payment_id=payment_id))
    with customer(), pytest.raises(RoleMissing):
        await public_payments.RefundPayment(refund(payment_id))


async def test_the_payment_of_an_order_without_one_is_not_found(payments, payment_id):
    with pytest.raises(OrderNotPaidFor):
        await payments.GetPaymentByOrder(of_order(payment_id))


async def test_a_watch_sends_the_current_state_then_every_change_and_ends_with_a_final_state(
    payments, public_payments, customer, payment_id
):
    await payments.AuthorizePayment(authorize(payment_id))
    with customer():
        watch = public_payments.WatchPayment(pb.WatchPaymentRequest(payment_id=payment_id))
        async with asyncio.timeout(60):
            first = await anext(watch)
            assert first.payment.state == pb.PAYMENT_STATE_AUTHORIZED
            await payments.CapturePayment(capture(payment_id))
            assert (await anext(watch)).payment.state == pb.PAYMENT_STATE_CAPTURED
            await payments.VoidPayment(void(payment_id))
            assert [message.payment.state async for message in watch] == [pb.PAYMENT_STATE_REFUNDED]
        resumed = public_payments.WatchPayment(
            pb.WatchPaymentRequest(payment_id=payment_id, resume_token=first.resume_token)
        )
        async with asyncio.timeout(60):
            assert [message.payment.state async for message in resumed] == [pb.PAYMENT_STATE_REFUNDED]


async def test_the_database_rejects_inconsistent_amounts_and_changed_ledgers(payments, books, payment_id):
    await payments.AuthorizePayment(authorize(payment_id))
    for wrong in ("authorized = amount + 1", "captured = authorized + 1", "refunded = captured + 1", "refunded = -1"):
        with pytest.raises(asyncpg.CheckViolationError):
            await books.rows.execute(f"UPDATE payment SET {wrong}")
    for change in ("UPDATE entry SET amount = 1", "DELETE FROM entry", "TRUNCATE entry"):
        with pytest.raises(asyncpg.RaiseError, match="append-only"):
            await books.rows.execute(change)
    again = """INSERT INTO entry (payment_id, operation_id, kind, outcome, amount, provider, reference)
        SELECT payment_id, $1, kind, outcome, amount, provider, reference FROM entry WHERE outcome = 'SUCCESS'"""
    for operation_id in (payment_id, "another"):
        with pytest.raises(asyncpg.UniqueViolationError):
            await books.rows.execute(again, operation_id)


async def test_every_query_can_be_prepared(books):
    for name in sql.names():
        await books.rows.prepare(getattr(sql, name))
