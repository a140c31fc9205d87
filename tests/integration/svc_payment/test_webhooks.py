"""The provider's webhooks: which are accepted, each once, and that none returns a payment to an earlier state."""

import asyncio
import json
import time
import uuid
from dataclasses import replace
from datetime import timedelta

import grpc
import pytest

from chassis.testing import serving
from mesh.simulators.webhooks import sign
from shop.payment.v1 import payment_service_pb2 as pb
from svc_payment.__main__ import compose
from tests.integration.svc_payment.conftest import SECRET
from tests.integration.svc_payment.requests import authorize, capture, eventually, of_order, refund, sums

OTHER_SECRET = "whsec_" + "YW5vdGhlci1zZWNyZXQtb2YtYXQtbGVhc3QtMjQtYnl0ZXM="


def signed(body: bytes, secrets=(SECRET,), event_id=None, age=0.0):
    """Return the headers of a webhook that is signed with the secrets."""
    return sign(secrets, event_id or f"evt_{uuid.uuid4().hex}", int(time.time() - age), body)


async def webhook_count(books) -> int:
    return await books.rows.fetchval("SELECT count(*) FROM webhook")


@pytest.fixture
async def authorized_id(payments, payment_id):
    """The id of an authorized payment."""
    await payments.AuthorizePayment(authorize(payment_id))
    return payment_id


async def test_refunds_by_the_providers_staff_are_recorded_after_their_webhooks(
    payments, webhook_endpoint, books, authorized_id
):
    await payments.CapturePayment(capture(authorized_id))
    webhook_endpoint.forwarding = True
    await books.provider.execute(authorized_id, "refunds", amount=300)
    await eventually(lambda: arrived(books, authorized_id, "PARTIALLY_REFUNDED"))
    await books.provider.execute(authorized_id, "refunds", amount=900)
    await eventually(lambda: arrived(books, authorized_id, "REFUNDED"))
    assert await books.events(authorized_id) == ["Started", "Authorized", "Captured", "Refunded", "Refunded"]
    await books.check(authorized_id)


async def arrived(books, payment_id, state):
    return await books.state(payment_id) == state


async def test_a_webhook_before_the_reply_records_the_authorization_once(payments, webhook_endpoint, books, payment_id):
    webhook_endpoint.forwarding = True
    first = asyncio.create_task(payments.AuthorizePayment(authorize(payment_id, "tok_webhook_first")))
    await webhook_endpoint.until_received(payment_id, "payment.authorized")
    assert (await first).state == pb.PAYMENT_STATE_AUTHORIZED
    assert await books.events(payment_id) == ["Started", "Authorized"]
    await books.check(payment_id)


async def test_duplicate_and_reordered_webhooks_change_nothing(payments, webhook_endpoint, books, payment_id):
    webhook_endpoint.forwarding = True
    await books.provider.set_faults(duplicate_webhooks=True, reorder_webhooks=True)
    await payments.AuthorizePayment(authorize(payment_id))
    await payments.CapturePayment(capture(payment_id))
    for kind in ("payment.captured", "payment.authorized"):
        await webhook_endpoint.until_received(payment_id, kind, count=2)
    assert await webhook_count(books) == 2
    await books.until_settled(payment_id, "CAPTURED")
    assert await books.events(payment_id) == ["Started", "Authorized", "Captured"]
    await books.check(payment_id)


async def test_a_replayed_webhook_is_accepted_and_claimed_once(payments, webhook_endpoint, books, authorized_id):
    body = await books.provider.webhook_body(authorized_id)
    headers = signed(body)
    answers = await asyncio.gather(*(webhook_endpoint.deliver(body, headers) for _ in range(5)))
    assert set(answers) == {grpc.StatusCode.OK}
    assert await webhook_count(books) == 1


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("another secret", lambda body: (body, signed(body, (OTHER_SECRET,)))),
        ("one byte changed", lambda body: (body.replace(b"1200", b"1201", 1), signed(body))),
        ("written anew", lambda body: (json.dumps(json.loads(body), indent=1).encode(), signed(body))),
        ("too old", lambda body: (body, signed(body, age=301))),
        ("too new", lambda body: (body, signed(body, age=-360))),
        ("another id", lambda body: (body, {**signed(body), "webhook-id": "evt_2"})),
        ("another time", lambda body: (body, {**signed(body), "webhook-timestamp": str(int(time.time()) - 10)})),
        ("unsigned", lambda body: (body, {**signed(body), "webhook-signature": ""})),
        ("without headers", lambda body: (body, {})),
    ],
)
async def test_an_untrusted_webhook_is_rejected_and_not_remembered(
    webhook_endpoint, books, authorized_id, what, change
):
    body, headers = change(await books.provider.webhook_body(authorized_id))
    assert await webhook_endpoint.deliver(body, headers) is grpc.StatusCode.UNAUTHENTICATED, what
    assert await webhook_count(books) == 0


async def test_a_signed_body_that_is_not_an_event_is_malformed(app, webhook_endpoint, books):
    for body in (b"", b"[]", b"{}", b'{"type": "payment.captured", "data": {"id": 1}}', b"\xff"):
        assert await webhook_endpoint.deliver(body, signed(body)) is grpc.StatusCode.INVALID_ARGUMENT
    assert await webhook_count(books) == 0


@pytest.mark.parametrize("where", ["type", "reference", "failure_code"])
async def test_a_signed_webhook_with_a_nul_in_a_text_is_malformed(webhook_endpoint, books, authorized_id, where):
    changes = {"kind": "payment\0authorized"} if where == "type" else {where: "payment\0"}
    body = await books.provider.webhook_body(authorized_id, **changes)
    assert await webhook_endpoint.deliver(body, signed(body)) is grpc.StatusCode.INVALID_ARGUMENT
    assert await webhook_count(books) == 0


async def test_a_text_that_only_looks_like_a_nul_is_accepted(webhook_endpoint, books, authorized_id):
    body = await books.provider.webhook_body(authorized_id, kind="payment.\\u0000")
    assert await webhook_endpoint.deliver(body, signed(body)) is grpc.StatusCode.OK


async def test_only_the_edge_may_deliver_webhooks(webhook_endpoint, books, authorized_id):
    body = await books.provider.webhook_body(authorized_id)
    assert await webhook_endpoint.deliver(body, signed(body), caller="svc_order") is grpc.StatusCode.PERMISSION_DENIED


async def test_both_secrets_are_valid_during_a_rotation(settings, issuer, webhook_endpoint, books, authorized_id):
    body = await books.provider.webhook_body(authorized_id)
    both = replace(settings, payment_webhook_secret=f"{OTHER_SECRET}, {SECRET}")
    async with serving("svc_payment", both, compose, issuer) as app:
        webhook_endpoint.address = app.address
        for secrets in ((SECRET,), (OTHER_SECRET,), (SECRET, OTHER_SECRET)):
            assert await webhook_endpoint.deliver(body, signed(body, secrets)) is grpc.StatusCode.OK
    after = replace(settings, payment_webhook_secret=OTHER_SECRET)
    async with serving("svc_payment", after, compose, issuer) as app:
        webhook_endpoint.address = app.address
        assert await webhook_endpoint.deliver(body, signed(body, (SECRET,))) is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    "changes",
    [
        {
            "status": "captured",
            "amount_captured": 1200,
            "version": 2,
            "operations": [
                {"id": "op_lie_1", "kind": "authorized", "amount": 1200, "idempotency_key": "k-1"},
                {"id": "op_lie_2", "kind": "captured", "amount": 1200, "idempotency_key": "k-2"},
            ],
        },
        {"amount": 1},
        {"currency": "EUR"},
    ],
    ids=["never happened", "another amount", "another currency"],
)
async def test_false_content_of_a_signed_webhook_is_not_recorded(
    payments, webhook_endpoint, books, authorized_id, changes
):
    before = await payments.GetPaymentByOrder(of_order(authorized_id))
    body = await books.provider.webhook_body(authorized_id, **changes)
    assert await webhook_endpoint.deliver(body, signed(body)) is grpc.StatusCode.OK
    await books.until_settled(authorized_id, "AUTHORIZED")
    after = await payments.GetPaymentByOrder(of_order(authorized_id))
    assert (after, sums(after)) == (before, (1200, 0, 0))
    await books.check(authorized_id)


async def test_a_webhook_of_an_unknown_payment_is_accepted_and_changes_nothing(webhook_endpoint, books, authorized_id):
    body = await books.provider.webhook_body(authorized_id, reference="payment-of-another-shop")
    assert await webhook_endpoint.deliver(body, signed(body)) is grpc.StatusCode.OK
    assert await webhook_count(books) == 1
    assert await books.state(authorized_id) == "AUTHORIZED"


async def test_an_old_webhook_about_a_refunded_payment_changes_nothing(
    payments, refund_as_staff, webhook_endpoint, books, authorized_id
):
    old = await books.provider.webhook_body(authorized_id)
    await payments.CapturePayment(capture(authorized_id))
    await refund_as_staff(refund(authorized_id))
    assert await webhook_endpoint.deliver(old, signed(old)) is grpc.StatusCode.OK
    await books.until_settled(authorized_id, "REFUNDED")
    assert await books.events(authorized_id) == ["Started", "Authorized", "Captured", "Refunded"]


async def test_webhooks_are_purged_after_their_retention(settings, issuer, books):
    ages = {"evt_old": timedelta(days=31), "evt_young": timedelta(days=29)}
    insert = "INSERT INTO webhook VALUES ('payment_provider', $1, 'payment.captured', now() - $2::interval)"
    for event_id, age in ages.items():
        await books.rows.execute(insert, event_id, age)
    async with serving("svc_payment", settings, compose, issuer):
        await eventually(lambda: only_the_young_one(books))


async def only_the_young_one(books):
    return [row["webhook_id"] for row in await books.rows.fetch("SELECT webhook_id FROM webhook")] == ["evt_young"]
