"""Webhooks as they arrive: with signatures that only their adapter accepts, and sent until accepted."""

from datetime import UTC, datetime, timedelta

import pytest

from chassis.external import webhooks
from chassis.external.webhooks import Untrusted
from svc_delivery.courier import consignment_from_json
from svc_payment.provider import PaymentProvider, Status, payment_from_json

pytestmark = pytest.mark.asyncio(loop_scope="module")

NEW_SECRET = "whsec_dGhlLW5ldy1zZWNyZXQtdGhhdC1mb2xsb3dzLWFmdGVy"


def verify(delivery, secrets, now=None, body=None):
    body = delivery.body if body is None else body
    return webhooks.verify(delivery.headers, body, secrets, now or datetime.now(UTC), read=payment_from_json)


async def test_each_change_of_a_payment_is_sent_as_a_valid_webhook(provider, receiver, secret, reference):
    payment = (await provider.authorize(reference=reference, token="tok_ok", amount=900, currency="JPY")).value
    captured = (await provider.capture(payment.id, amount=900, key="capture")).value
    refunded = (await provider.refund(payment.id, amount=900, key="refund")).value
    verified = [verify(delivery, [secret]) for delivery in await receiver.until(payment.id, 3)]
    assert {webhook.type: webhook.data for webhook in verified} == {
        "payment.authorized": payment,
        "payment.captured": captured,
        "payment.refunded": refunded,
    }
    assert len({webhook.id for webhook in verified}) == 3
    assert [state.version for state in (payment, captured, refunded)] == [1, 2, 3]


async def test_a_webhook_that_was_tampered_with_is_rejected(provider, receiver, secret, reference):
    await provider.authorize(reference=reference, token="tok_ok", amount=1200, currency="USD")
    (delivery,) = await receiver.until(reference, 1)
    forgeries = {
        "another amount": lambda: verify(delivery, [secret], body=delivery.body.replace(b"1200", b"9200")),
        "one space more": lambda: verify(delivery, [secret], body=delivery.body + b" "),
        "the secret of another endpoint": lambda: verify(delivery, [NEW_SECRET]),
        "no secret at all": lambda: verify(delivery, []),
    }
    for name, forgery in forgeries.items():
        with pytest.raises(Untrusted) as rejected:
            forgery()
        assert rejected.value.reason == "signature_mismatch", name


async def test_a_webhook_is_valid_for_five_minutes(provider, receiver, secret, reference):
    await provider.authorize(reference=reference, token="tok_ok", amount=1200, currency="USD")
    (delivery,) = await receiver.until(reference, 1)
    sent = datetime.fromtimestamp(int(delivery.headers["webhook-timestamp"]), UTC)
    for age in (timedelta(seconds=300), timedelta(seconds=-300)):
        assert verify(delivery, [secret], now=sent + age).data.reference == reference
    for age in (timedelta(seconds=301), timedelta(seconds=-301), timedelta(days=3)):
        with pytest.raises(Untrusted, match="timestamp_out_of_window"):
            verify(delivery, [secret], now=sent + age)


async def test_a_webhook_that_was_not_accepted_is_sent_again_with_the_same_id(provider, receiver, secret, reference):
    receiver.refuse(reference, 500, 401, 302)
    await provider.authorize(reference=reference, token="tok_ok", amount=1200, currency="USD")
    deliveries = await receiver.until(reference, 4)
    assert {verify(delivery, [secret]).id for delivery in deliveries} == {deliveries[0].headers["webhook-id"]}


async def test_the_provider_counts_what_it_sent(provider, provider_api, receiver, reference):
    receiver.refuse(reference, 503)
    payment = (await provider.authorize(reference=reference, token="tok_ok", amount=1, currency="USD")).value
    await receiver.until(reference, 2)
    # The count is written when the answer has been read, which may be after the next request of ours.
    while True:
        events = (await provider_api.get("/v1/events")).json()["data"]
        (event,) = [event for event in events if event["subject"] == payment.id]
        if event["deliveries_left"] == 0:
            break
    assert (event["type"], event["attempts"]) == ("payment.authorized", 2)


async def test_during_a_rotation_both_secrets_are_valid(launch_telling, receiver, secret, reference):
    process = launch_telling("payment_provider", WEBHOOK_SECRET=f"{NEW_SECRET},{secret}")
    provider = PaymentProvider(url=process.url, key=process.key)
    await provider.authorize(reference=reference, token="tok_ok", amount=1200, currency="USD")
    await provider.aclose()
    (delivery,) = await receiver.until(reference, 1)
    assert len(delivery.headers["webhook-signature"].split()) == 2
    for secrets in ([secret], [NEW_SECRET], [secret, NEW_SECRET]):
        assert verify(delivery, secrets).data.status is Status.AUTHORIZED


async def test_a_webhook_of_one_simulator_is_rejected_by_the_adapter_of_the_other(
    provider, receiver, secret, reference
):
    await provider.authorize(reference=reference, token="tok_ok", amount=1200, currency="USD")
    (delivery,) = await receiver.until(reference, 1)
    with pytest.raises(Untrusted, match="body_malformed"):
        webhooks.verify(delivery.headers, delivery.body, [secret], datetime.now(UTC), read=consignment_from_json)
