"""Webhooks: a verified one is received, one that is not says so by its error alone, and each is claimed once."""

import asyncio
import base64
import hashlib
import hmac
import json
import time

import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.empty_pb2 import Empty

from chassis.external.webhooks import Webhook, claim, receive
from shop.payment.v1.payment_service_pb2_grpc import PaymentServiceServicer, PaymentServiceStub

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + base64.b64encode(bytes(24)).decode()
EVENT = {"type": "payment.captured", "data": {"amount": 5}}


def signed(body, secret=SECRET, webhook_id="msg_1", sent=None):
    """Return the metadata of a webhook, signed as the standard says."""
    timestamp = str(int(sent or time.time()))
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.digest(key, f"{webhook_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return (
        ("x-shop-caller", "edge"),
        ("webhook-id", webhook_id),
        ("webhook-timestamp", timestamp),
        ("webhook-signature", "v1," + base64.b64encode(digest).decode()),
    )


@pytest.fixture
def received():
    return []


@pytest.fixture
async def provider(serve, received):
    """The payment provider's end: it calls the RPC that receives its webhooks."""

    async def receive_event(request, context):
        received.append(receive(request, context, (SECRET, OTHER), read=lambda data: data["amount"]))
        return Empty()

    async def compose(app):
        app.serve(type("Toy", (PaymentServiceServicer,), {"ReceiveProviderEvent": staticmethod(receive_event)})())

    async with serve(compose=compose) as app, grpc.aio.insecure_channel(app.address) as channel:
        yield PaymentServiceStub(channel).ReceiveProviderEvent


@pytest.mark.parametrize("secret", [SECRET, OTHER])
async def test_a_signed_webhook_is_received_under_either_secret(provider, received, secret):
    body = json.dumps(EVENT).encode()
    await provider(HttpBody(data=body), metadata=signed(body, secret))
    assert received == [Webhook("msg_1", "payment.captured", 5)]


@pytest.mark.parametrize(
    ("change", "logged"),
    [
        ({"secret": "whsec_" + base64.b64encode(b"x" * 24).decode()}, "signature_mismatch"),
        ({"sent": time.time() - 3600}, "timestamp_out_of_window"),
        ({"sent": time.time() + 3600}, "timestamp_out_of_window"),
        ({"webhook_id": "a.b"}, "id_malformed"),
    ],
)
async def test_an_untrusted_webhook_is_rejected_and_only_the_log_says_why(provider, failure, log, change, logged):
    body = json.dumps(EVENT).encode()
    failed = await failure(provider(HttpBody(data=body), metadata=signed(body, **change)))
    assert (failed.code, failed.reason) == (grpc.StatusCode.UNAUTHENTICATED, "WEBHOOK_REJECTED")
    assert logged not in failed.text
    assert [line["reason"] for line in log.lines("webhook rejected")] == [logged]


async def test_another_body_than_the_signed_one_is_rejected(provider, received, failure):
    failed = await failure(provider(HttpBody(data=b"{}"), metadata=signed(json.dumps(EVENT).encode())))
    assert failed.reason == "WEBHOOK_REJECTED"
    assert received == []


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b'{"type": "x"}', b'{"data": {"amount": 5}}', b'{"type": "x", "data": {}}']
)
async def test_a_signed_body_that_is_no_event_is_malformed(provider, received, failure, content):
    failed = await failure(provider(HttpBody(data=content), metadata=signed(content)))
    assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "WEBHOOK_MALFORMED")
    assert received == []


async def claimed(database, sender="provider", webhook_id="msg_1"):
    async with database.transaction() as tx:
        return await claim(tx, sender, Webhook(webhook_id, "t", None))


async def test_a_webhook_is_claimed_once_for_each_sender(database):
    assert [await claimed(database) for _ in range(3)] == [True, False, False]
    assert await claimed(database, webhook_id="msg_2")
    assert await claimed(database, sender="courier")


async def test_of_twenty_deliveries_at_once_one_claims_the_webhook(database):
    assert sum(await asyncio.gather(*(claimed(database) for _ in range(20)))) == 1


async def test_a_claim_of_a_transaction_that_rolls_back_leaves_the_webhook_to_the_next_delivery(database):
    first_claimed, fail = asyncio.Event(), asyncio.Event()

    async def first():
        async with database.transaction() as tx:
            assert await claim(tx, "provider", Webhook("msg_1", "t", None))
            first_claimed.set()
            await fail.wait()
            raise ConnectionResetError

    task = asyncio.create_task(first())
    await first_claimed.wait()
    second = asyncio.create_task(claimed(database))  # waits for the first
    fail.set()
    with pytest.raises(ConnectionResetError):
        await task
    assert await second
