"""svc_payment as a process: the next one completes what a `kill -9` interrupts; invalid settings end the start."""

import asyncio
import os
import sys
from contextlib import asynccontextmanager, suppress
from dataclasses import fields, replace

import pytest

from chassis import OutcomeUnknown, Settings
from chassis.testing import client_for
from mesh.errors import StackError
from mesh.stack.process import Process, Program
from mesh.stack.readiness import grpc_serving
from shop.payment.v1 import payment_service_pb2 as pb
from shop.payment.v1.payment_service_pb2_grpc import PaymentServiceStub
from tests.integration.svc_payment.requests import authorize, capture, eventually, is_pending, until_known, void


@pytest.fixture
def settings(settings):
    """Settings with short leases."""
    return replace(settings, payment_provider_timeout=1.0)


@pytest.fixture
def program(settings, repository, free_port):
    """svc_payment as the stack starts it."""
    address = f"127.0.0.1:{free_port()}"
    names = {field.name for field in fields(settings)} - {field.name for field in fields(Settings)}
    own = {name.upper(): str(getattr(settings, name)) for name in names | {"database_url", "redis_url", "event_prefix"}}
    return Program(
        name="svc_payment",
        argv=(sys.executable, "-m", "svc_payment"),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{repository}:{repository / 'gen'}", "LISTEN": address, **own},
        ready=grpc_serving(address),
        address=address,
    )


@pytest.fixture
def running(program, tmp_path):
    """Run the process: `async with running() as (process, payments)`; it ends by SIGKILL."""

    @asynccontextmanager
    async def running():
        process = Process(program, tmp_path / "log")
        await process.start()
        try:
            await process.until_ready()
            async with client_for(program.address, PaymentServiceStub, caller="svc_order") as payments:
                yield process, payments
        finally:
            process.kill()
            await process.until_ended()

    return running


async def killed_during(process, work, reached) -> None:
    """Kill the process as soon as a condition holds during a call."""
    call = asyncio.create_task(work)
    await eventually(reached)
    process.kill()
    with suppress(OutcomeUnknown):
        await call


async def test_an_authorization_interrupted_by_a_kill_is_completed_by_the_next_process(running, books, payment_id):
    async def written():
        return await books.state(payment_id) is not None

    async with running() as (process, payments):
        await killed_during(process, payments.AuthorizePayment(authorize(payment_id, "tok_slow_800")), written)
    async with running() as (_, payments):
        await books.until_settled(payment_id, "AUTHORIZED")
        payment = await until_known(lambda: payments.AuthorizePayment(authorize(payment_id, "tok_slow_800")))
        assert payment.state == pb.PAYMENT_STATE_AUTHORIZED
    assert await books.ledger(payment_id) == [("authorized", 1200)]
    await books.check(payment_id)


async def test_a_capture_whose_reply_a_kill_lost_is_found_and_not_repeated(running, books, payment_id):
    async def charged():
        return ("captured", 1200) in await books.ledger(payment_id)

    async with running() as (process, payments):
        await until_known(lambda: payments.AuthorizePayment(authorize(payment_id, "tok_capture_timeout_then_charged")))
        await killed_during(process, payments.CapturePayment(capture(payment_id, request_id="r-1")), charged)
    async with running() as (_, payments):
        await books.until_settled(payment_id, "CAPTURED")
        payment = await until_known(lambda: payments.CapturePayment(capture(payment_id, request_id="r-1")))
        assert payment.state == pb.PAYMENT_STATE_CAPTURED
    assert await books.ledger(payment_id) == [("authorized", 1200), ("captured", 1200)]
    await books.check(payment_id)


async def test_a_void_requested_before_a_kill_is_completed_by_the_next_process(running, books, payment_id):
    async def requested():
        return await books.rows.fetchval("SELECT count(*) FROM entry WHERE kind = 'CANCEL'") > 0

    async with running() as (process, payments):
        await until_known(lambda: payments.AuthorizePayment(authorize(payment_id, "tok_void_slow_800")))
        await killed_during(process, payments.VoidPayment(void(payment_id)), requested)
    async with running():
        await books.until_settled(payment_id, "VOIDED")
    assert await books.ledger(payment_id) == [("authorized", 1200), ("voided", 1200)]
    await books.check(payment_id)


async def test_a_stopped_process_completes_the_attempt_whose_caller_is_gone(running, books, payment_id):
    async def written():
        return await books.state(payment_id) is not None

    async with running() as (process, payments):
        call = asyncio.create_task(payments.AuthorizePayment(authorize(payment_id, "tok_slow_800")))
        await eventually(written)
        call.cancel()
        await process.stop()
        assert await books.state(payment_id) == "AUTHORIZED"
    await books.until_settled(payment_id, "AUTHORIZED")


async def test_kills_at_any_time_lose_nothing_and_repeat_nothing(running, books, payment_id):
    names = [f"{payment_id}-{number}" for number in range(12)]

    async def order(payments, name):
        payment = await payments.AuthorizePayment(authorize(name))
        if not is_pending(payment):  # else a process that was killed may have begun the attempt
            payment = await payments.CapturePayment(capture(name, 1000, request_id=f"{name[-3:]}-capture"))
        if not is_pending(payment):
            payment = await payments.VoidPayment(void(name, request_id=f"{name[-3:]}-void"))
        return payment

    for delay in (0.03, 0.1, 0.25):
        async with running() as (process, payments):
            calls = asyncio.gather(*(order(payments, name) for name in names), return_exceptions=True)
            asyncio.get_running_loop().call_later(delay, process.kill)
            await calls
    async with running() as (_, payments):
        for name in names:
            await until_known(lambda name=name: order(payments, name))
            await books.until_settled(name, "REFUNDED")
            assert await books.ledger(name) == [("authorized", 1200), ("captured", 1000), ("refunded", 1000)]
    await books.check(*names)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PAYMENT_PROVIDER_URL", "", "PAYMENT_PROVIDER_URL is not set"),
        ("PAYMENT_PROVIDER_KEY", "", "PAYMENT_PROVIDER_KEY is not set"),
        ("PAYMENT_WEBHOOK_SECRET", "", "PAYMENT_WEBHOOK_SECRET is not set"),
        ("PAYMENT_WEBHOOK_SECRET", "whsec_c2hvcnQ=", "PAYMENT_WEBHOOK_SECRET: a webhook secret is"),
        ("PAYMENT_PROVIDER_TIMEOUT", "soon", "PAYMENT_PROVIDER_TIMEOUT must be float"),
    ],
)
async def test_an_invalid_setting_is_named_at_the_start(program, tmp_path, name, value, said):
    process = Process(replace(program, env={**program.env, name: value}), tmp_path / "log")
    await process.start()
    with pytest.raises(StackError, match="exit code 2") as failure:
        await process.until_ready()
    assert said in failure.value.log
    assert "c2hvcnQ" not in failure.value.log
