"""The provider's webhooks: who is believed, what is counted once, and that nothing moves a payment back."""

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
from tests.integration.svc_payment.orders import authorize, capture, eventually, of_order, refund, sums

OTHER_SECRET = "whsec_" + "YW5vdGhlci1zZWNyZXQtb2YtYXQtbGVhc3QtMjQtYnl0ZXM="


def signed(body: bytes, secrets=(SECRET,), event_id=None, age=0.0):
    """A webhook as somebody who knows the secret could make it."""
    return sign(secrets, event_id or f"evt_{uuid.uuid4().hex}", int(time.time() - age), body)


async def heard(books) -> int:
    return await books.rows.fetchval("SELECT count(*) FROM webhook")


@pytest.fixture
async def paid(payments, payment_id):
    """A payment that is authorized."""
    await payments.AuthorizePayment(authorize(payment_id))
    return payment_id


async def test_what_the_providers_staff_did_is_learned_by_its_webhook(payments, road, books, paid):
    await payments.CapturePayment(capture(paid))
    road.open = True
    await books.provider.act(paid, "refunds", amount=300)
    await eventually(lambda: arrived(books, paid, "PARTIALLY_REFUNDED"))
    await books.provider.act(paid, "refunds", amount=900)
    await eventually(lambda: arrived(books, paid, "REFUNDED"))
    assert await books.events(paid) == ["Started", "Authorized", "Captured", "Refunded", "Refunded"]
    await books.check(paid)


async def arrived(books, payment_id, state):
    return await books.state(payment_id) == state


async def test_a_webhook_settles_what_is_unknown_before_anyone_asks(payments, road, books, payment_id):
    road.open = True
    first = asyncio.create_task(payments.AuthorizePayment(authorize(payment_id, "tok_webhook_first")))
    await road.until(payment_id, "payment.authorized")
    assert (await first).state == pb.PAYMENT_STATE_AUTHORIZED
    assert await books.events(payment_id) == ["Started", "Authorized"]
    await books.check(payment_id)


async def test_webhooks_doubled_and_out_of_order_change_nothing_twice_and_nothing_back(
    payments, road, books, payment_id
):
    road.open = True
    await books.provider.misbehave(duplicate_webhooks=True, reorder_webhooks=True)
    await payments.AuthorizePayment(authorize(payment_id))
    await payments.CapturePayment(capture(payment_id))
    for kind in ("payment.captured", "payment.authorized"):
        await road.until(payment_id, kind, count=2)
    assert await heard(books) == 2
    await books.until_settled(payment_id, "CAPTURED")
    assert await books.events(payment_id) == ["Started", "Authorized", "Captured"]
    await books.check(payment_id)


async def test_a_webhook_replayed_is_taken_and_counted_once(payments, road, books, paid):
    body = await books.provider.tale(paid)
    headers = signed(body)
    answers = await asyncio.gather(*(road.bring(body, headers) for _ in range(5)))
    assert set(answers) == {grpc.StatusCode.OK}
    assert await heard(books) == 1


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
async def test_a_webhook_that_cannot_be_trusted_is_refused_and_leaves_no_trace(road, books, paid, what, change):
    body, headers = change(await books.provider.tale(paid))
    assert await road.bring(body, headers) is grpc.StatusCode.UNAUTHENTICATED, what
    assert await heard(books) == 0


async def test_a_signed_body_that_is_no_event_of_ours_is_malformed(app, road, books):
    for body in (b"", b"[]", b"{}", b'{"type": "payment.captured", "data": {"id": 1}}', b"\xff"):
        assert await road.bring(body, signed(body)) is grpc.StatusCode.INVALID_ARGUMENT
    assert await heard(books) == 0


async def test_only_the_edge_brings_webhooks(road, books, paid):
    body = await books.provider.tale(paid)
    assert await road.bring(body, signed(body), caller="svc_order") is grpc.StatusCode.PERMISSION_DENIED


async def test_two_secrets_are_good_while_one_replaces_the_other(settings, issuer, road, books, paid):
    body = await books.provider.tale(paid)
    both = replace(settings, payment_webhook_secret=f"{OTHER_SECRET}, {SECRET}")
    async with serving("svc_payment", both, compose, issuer) as app:
        road.address = app.address
        for secrets in ((SECRET,), (OTHER_SECRET,), (SECRET, OTHER_SECRET)):
            assert await road.bring(body, signed(body, secrets)) is grpc.StatusCode.OK
    after = replace(settings, payment_webhook_secret=OTHER_SECRET)
    async with serving("svc_payment", after, compose, issuer) as app:
        road.address = app.address
        assert await road.bring(body, signed(body, (SECRET,))) is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    "lies",
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
async def test_what_a_signed_webhook_says_is_a_hint_and_the_provider_is_asked(payments, road, books, paid, lies):
    before = await payments.GetPaymentByOrder(of_order(paid))
    body = await books.provider.tale(paid, **lies)
    assert await road.bring(body, signed(body)) is grpc.StatusCode.OK
    await books.until_settled(paid, "AUTHORIZED")
    after = await payments.GetPaymentByOrder(of_order(paid))
    assert (after, sums(after)) == (before, (1200, 0, 0))
    await books.check(paid)


async def test_a_webhook_about_a_payment_that_is_not_ours_is_taken_and_forgotten(road, books, paid):
    body = await books.provider.tale(paid, reference="payment-of-another-shop")
    assert await road.bring(body, signed(body)) is grpc.StatusCode.OK
    assert await heard(books) == 1
    assert await books.state(paid) == "AUTHORIZED"


async def test_an_old_webhook_about_a_refunded_payment_changes_nothing(payments, give_back, road, books, paid):
    old = await books.provider.tale(paid)
    await payments.CapturePayment(capture(paid))
    await give_back(refund(paid))
    assert await road.bring(old, signed(old)) is grpc.StatusCode.OK
    await books.until_settled(paid, "REFUNDED")
    assert await books.events(paid) == ["Started", "Authorized", "Captured", "Refunded"]


async def test_a_webhook_is_forgotten_long_after_the_provider_has_stopped_to_send_it(settings, issuer, books):
    ages = {"evt_old": timedelta(days=31), "evt_young": timedelta(days=29)}
    insert = "INSERT INTO webhook VALUES ('payment_provider', $1, 'payment.captured', now() - $2::interval)"
    for event_id, age in ages.items():
        await books.rows.execute(insert, event_id, age)
    async with serving("svc_payment", settings, compose, issuer):
        await eventually(lambda: only_the_young_one(books))


async def only_the_young_one(books):
    return [row["webhook_id"] for row in await books.rows.fetch("SELECT webhook_id FROM webhook")] == ["evt_young"]
