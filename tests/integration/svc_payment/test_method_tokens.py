"""Tokens of payment methods: forgotten when the authorization needs them no more, and barred after many declines."""

import asyncio

import pytest

from shop.payment.v1 import payment_service_pb2 as pb
from shop.payment.v1.payment_errors import PaymentAttemptsExceeded, PaymentDeclined, PaymentIdTaken
from svc_payment.store import sql
from tests.integration.svc_payment.requests import authorize, capture, void

#: Every text in the database.
TEXTS = (
    "SELECT (SELECT string_agg(payment::text, '') FROM payment) || (SELECT string_agg(m::text, '') FROM known_method m)"
)


@pytest.mark.parametrize("token", ["tok_ok", "tok_declined", "tok_3ds", "tok_konbini", "tok_capture_500"])
async def test_a_token_is_forgotten_when_the_provider_has_answered(payments, books, payment_id, token):
    await payments.ValidatePaymentMethod(pb.ValidatePaymentMethodRequest(user_id="u", payment_method_token=token))
    first = await asyncio.gather(payments.AuthorizePayment(authorize(payment_id, token)), return_exceptions=True)
    assert token not in await books.rows.fetchval(TEXTS)
    again = await asyncio.gather(
        payments.AuthorizePayment(authorize(payment_id, token, request_id="again")), return_exceptions=True
    )
    assert [type(one) for one in again] == [type(one) for one in first]
    with pytest.raises(PaymentIdTaken):
        await payments.AuthorizePayment(authorize(payment_id, "tok_another", request_id="another"))


async def test_a_token_is_kept_while_the_authorization_may_have_to_be_sent_again(payments, provider, books, payment_id):
    await provider.set_faults(outage=True)
    await payments.AuthorizePayment(authorize(payment_id))
    assert await books.rows.fetchval("SELECT token FROM payment") == "tok_ok"
    await payments.VoidPayment(void(payment_id))
    await books.rows.execute("UPDATE payment SET void_request_time = now() - interval '1 hour'")
    await provider.set_faults()
    await books.until_settled(payment_id, "VOIDED")
    assert await books.rows.fetchval("SELECT token FROM payment") == ""


async def test_a_payment_of_the_release_before_is_known_by_its_token(payments, provider, books, payment_id):
    await provider.set_faults(outage=True)
    await payments.AuthorizePayment(authorize(payment_id))
    await books.rows.execute("UPDATE payment SET fingerprint = ''")
    again = await payments.AuthorizePayment(authorize(payment_id, request_id="again"))
    assert again.state == pb.PAYMENT_STATE_PROCESSING


async def decline(payments, payment_id, token, **changes):
    with pytest.raises(PaymentDeclined):
        await payments.AuthorizePayment(authorize(payment_id, token, **changes))


def validate(token, user_id="user-1"):
    return pb.ValidatePaymentMethodRequest(user_id=user_id, payment_method_token=token)


async def test_a_user_whose_cards_are_declined_one_after_the_other_is_barred_for_a_while(payments, books, payment_id):
    for number in range(5):
        await decline(payments, f"{payment_id}-{number}", f"tok_unknown_{number}")
    with pytest.raises(PaymentAttemptsExceeded) as error:
        await payments.ValidatePaymentMethod(validate("tok_ok"))
    assert error.value.retry_seconds
    with pytest.raises(PaymentAttemptsExceeded):
        await payments.AuthorizePayment(authorize(f"{payment_id}-5"))
    assert await books.ledger(f"{payment_id}-5") == [], "the provider is not called"
    await payments.ValidatePaymentMethod(validate("tok_ok", user_id="user-2"))
    await books.rows.execute("UPDATE payment SET update_time = now() - interval '2 hours'")
    await payments.AuthorizePayment(authorize(f"{payment_id}-6"))


async def test_a_card_that_is_declined_for_many_users_is_barred(payments, payment_id):
    for number in range(10):
        await decline(payments, f"{payment_id}-{number}", "tok_declined", user_id=f"user-{number}")
    with pytest.raises(PaymentAttemptsExceeded):
        await payments.ValidatePaymentMethod(validate("tok_declined", user_id="user-99"))
    await payments.ValidatePaymentMethod(validate("tok_ok", user_id="user-1"))


async def test_the_same_card_declined_again_and_again_does_not_bar_its_user(payments, payment_id):
    for number in range(6):
        await decline(payments, f"{payment_id}-{number}", "tok_declined")
    await payments.AuthorizePayment(authorize(f"{payment_id}-6"))


async def test_a_payment_is_read_by_a_plan_that_is_made_once(payments, books, payment_id):
    """Of an array, PostgreSQL plans each execution anew, which costs more than the read."""
    await payments.AuthorizePayment(authorize(payment_id))
    await payments.CapturePayment(capture(payment_id))
    await books.rows.execute("ANALYZE payment, entry")
    read = await books.rows.prepare(sql.read_payment)
    for _ in range(10):
        assert len(await read.fetch(payment_id)) == 4
    plans = "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE name = $1"
    generic, custom = await books.rows.fetchrow(plans, read.get_name())
    assert (generic, custom) == (5, 5), "the first five are planned with their values"
