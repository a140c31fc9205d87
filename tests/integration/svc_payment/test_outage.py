"""A provider that is away: few requests reach it, nothing is lost, and payments are settled soon after its return."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from chassis.external.breaker import FAILURES
from chassis.testing import client_for, serving
from shop.payment.v1 import payment_service_pb2 as pb
from shop.payment.v1.payment_service_pb2_grpc import PaymentServiceStub
from svc_payment.__main__ import compose
from tests.integration.svc_payment.requests import authorize, eventually, of_order

ANSWER = b"HTTP/1.1 500 Error\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"


@asynccontextmanager
async def failing_provider():
    """A provider that answers 500 to everything: yields its URL, and its requests by method."""
    requests = Counter()

    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        requests[head.split()[0].decode()] += 1
        writer.write(ANSWER)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server:
        yield f"http://{host}:{port}", requests


@pytest.fixture
def serve(settings, issuer, webhook_endpoint):
    @asynccontextmanager
    async def serve(**changes):
        async with (
            serving("svc_payment", replace(settings, **changes), compose, issuer) as app,
            client_for(app.address, PaymentServiceStub, caller="svc_order") as stub,
        ):
            webhook_endpoint.address = app.address
            yield stub

    return serve


async def test_an_order_costs_a_provider_that_fails_few_requests_however_often_it_is_called(serve, books, payment_id):
    """A saga calls again and again; the channel and the worker retry as well."""
    async with failing_provider() as (url, requests), serve(payment_provider_url=url) as payments:

        async def attempts():
            return await books.rows.fetchval("SELECT attempts FROM payment")

        for number in range(20):
            payment = await payments.AuthorizePayment(authorize(payment_id, request_id=f"r-{number}"))
            assert payment.state == pb.PAYMENT_STATE_PROCESSING
            await payments.GetPaymentByOrder(of_order(payment_id))
        assert await attempts() <= 4, "40 calls make no attempt of their own"
        await eventually(attempts, lambda count: count >= 3)
        in_flight = 1
        assert requests.total() <= await attempts() + in_flight, "a fetch that fails is not followed by a request"


async def test_calls_about_a_payment_make_no_attempt_while_the_provider_does_not_answer(
    serve, provider, books, payment_id
):
    names = [f"{payment_id}-{number}" for number in range(FAILURES)]
    async with serve(reconcile_seconds=3600.0) as payments:
        await provider.set_faults(outage=True)
        for name in names:
            await payments.AuthorizePayment(authorize(name))
        await books.rows.execute("UPDATE payment SET next_attempt_time = now() - interval '1 second'")
        for name in names:
            await payments.GetPaymentByOrder(of_order(name))
        due = await books.rows.fetchval("SELECT count(*) FROM payment WHERE next_attempt_time <= now()")
        assert due >= len(names) - 1, "all but a probe stay due"


async def test_many_orders_cost_a_provider_that_fails_no_more_than_its_breaker_lets_through(serve, books, payment_id):
    async with failing_provider() as (url, requests), serve(payment_provider_url=url) as payments:
        for number in range(50):
            await payments.AuthorizePayment(authorize(f"{payment_id}-{number}"))
        assert requests.total() <= FAILURES + 3, "those that opened the circuit, and its probes"


async def test_payments_of_an_outage_are_settled_soon_after_its_end(serve, provider, books, payment_id):
    names = [f"{payment_id}-{number}" for number in range(40)]
    async with serve() as payments:
        await provider.set_faults(outage=True)
        replies = await asyncio.gather(*(payments.AuthorizePayment(authorize(name)) for name in names))
        assert {reply.state for reply in replies} == {pb.PAYMENT_STATE_PROCESSING}
        # As after an outage of minutes: the pauses are long, and each probe failed.
        await books.rows.execute(
            "UPDATE payment SET attempts = 9, next_attempt_time = now() + random() * interval '3 seconds'"
        )
        await provider.set_faults()
        unsettled = "SELECT count(*) FROM payment WHERE state <> 'AUTHORIZED'"

        async def settled():
            return await books.rows.fetchval(unsettled) == 0

        await eventually(settled)
    await books.check(*names)
