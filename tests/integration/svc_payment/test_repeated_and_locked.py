"""A webhook that is sent again, and due payments that another process has locked."""

import asyncio
import uuid
from dataclasses import replace

import grpc

from chassis.testing import client_for, eventually, serving
from shop.payment.v1.payment_service_pb2_grpc import PaymentServiceStub
from svc_payment.__main__ import CONCURRENCY, compose
from tests.integration.database_control import connected
from tests.integration.svc_payment.requests import authorize
from tests.integration.svc_payment.test_webhooks import signed

ROW = "SELECT xmin::text FROM payment WHERE payment_id = $1"
DUE = "SELECT next_attempt_time <= now() FROM payment WHERE payment_id = $1"


async def hint(provider, payment_id):
    """Return a webhook that reports something new about a payment, so that the service fetches its state."""
    operations = [
        {"id": f"op-{uuid.uuid4().hex}", "kind": kind, "amount": 1200, "idempotency_key": uuid.uuid4().hex}
        for kind in ("authorized", "captured")
    ]
    body = await provider.webhook_body(
        payment_id, status="captured", amount_captured=1200, version=2, operations=operations
    )
    return body, signed(body)


async def test_a_webhook_that_is_sent_again_does_not_change_its_payment_again(
    payments, webhook_endpoint, books, payment_id
):
    await payments.AuthorizePayment(authorize(payment_id))
    webhook = await hint(books.provider, payment_id)
    authorized = await books.rows.fetchval(ROW, payment_id)
    assert await webhook_endpoint.deliver(*webhook) is grpc.StatusCode.OK
    await books.until_settled(payment_id, "AUTHORIZED")
    fetched = await books.rows.fetchval(ROW, payment_id)
    assert fetched != authorized, "the first one made the service fetch the provider's state"
    assert await webhook_endpoint.deliver(*webhook) is grpc.StatusCode.OK
    assert await books.rows.fetchval(ROW, payment_id) == fetched


async def test_due_payments_that_another_process_has_locked_do_not_keep_others_waiting(
    settings, issuer, webhook_endpoint, books, database
):
    """As many are locked as the worker attempts at a time."""
    locked = [f"payment-{uuid.uuid4().hex}" for _ in range(CONCURRENCY)]
    other = f"payment-{uuid.uuid4().hex}"
    woken_only = replace(settings, reconcile_seconds=3600)
    async with (
        serving("svc_payment", woken_only, compose, issuer) as app,
        client_for(app.address, PaymentServiceStub, caller="svc_order") as payments,
        connected(database) as another_process,
    ):
        webhook_endpoint.address = app.address
        await asyncio.gather(*(payments.AuthorizePayment(authorize(payment_id)) for payment_id in (*locked, other)))
        overdue = "UPDATE payment SET next_attempt_time = now() - interval '1 minute' WHERE payment_id = ANY($1)"
        await books.rows.execute(overdue, locked)
        async with another_process.transaction():
            await another_process.execute("SELECT FROM payment WHERE payment_id = ANY($1) FOR UPDATE", locked)
            assert await webhook_endpoint.deliver(*await hint(books.provider, other)) is grpc.StatusCode.OK
            await eventually(
                lambda: books.rows.fetchval(DUE, other), lambda is_due: not is_due, seconds=8
            )  # less than the service's lock_timeout
            for payment_id in locked:
                assert await books.rows.fetchval(DUE, payment_id)
