"""The simulators as processes: shutdown, state after a kill -9, and errors at the start."""

import asyncio
import os
import socket
import subprocess
import sys
from contextlib import aclosing

import pytest

from chassis.external.api import Ok, Unknown
from svc_delivery.courier import Courier, CourierAddress, Status
from svc_payment.provider import PaymentProvider

pytestmark = pytest.mark.asyncio(loop_scope="module")


def adapter_of(process):
    return aclosing(PaymentProvider(url=process.url, key=process.key, timeout=30))


def authorize(provider, reference, token="tok_ok"):
    return provider.authorize(reference=reference, token=token, amount=1200, currency="USD")


async def test_an_acknowledged_payment_survives_a_kill(launch, tmp_path, reference):
    state = str(tmp_path / "state")
    first = launch("payment_provider", STATE_FILE=state)
    async with adapter_of(first) as provider:
        answered = await authorize(provider, reference)
    first.kill()
    async with adapter_of(launch("payment_provider", STATE_FILE=state)) as provider:
        assert await authorize(provider, reference) == answered
        assert await provider.find_by_reference(reference) == answered


async def test_no_kill_duplicates_or_loses_an_acknowledged_payment(launch, tmp_path, reference):
    state = str(tmp_path / "state")
    answered = {}
    for run in range(3):
        process = launch("payment_provider", STATE_FILE=state)
        # Those of the run before are asked for again too: known ones are answered from memory.
        references = [f"{reference}-{number}" for number in range(50 * (run + 1))]
        async with adapter_of(process) as provider:
            tasks = [asyncio.create_task(authorize(provider, each)) for each in references]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            process.kill()
            for each, outcome in zip(references, await asyncio.gather(*tasks), strict=True):
                if isinstance(outcome, Ok):
                    assert answered.setdefault(each, outcome) == outcome
    assert answered
    async with adapter_of(launch("payment_provider", STATE_FILE=state)) as provider:
        for each, outcome in answered.items():
            assert await provider.find_by_reference(each) == outcome


async def test_a_webhook_that_was_not_accepted_before_a_kill_is_sent_after_it(
    launch_telling, receiver, tmp_path, reference
):
    state = str(tmp_path / "state")
    receiver.gate.clear()
    try:
        first = launch_telling("payment_provider", STATE_FILE=state)
        async with adapter_of(first) as provider:
            await authorize(provider, reference)
        (before,) = await receiver.until(reference, 1)
        first.kill()
    finally:
        receiver.gate.set()
    launch_telling("payment_provider", STATE_FILE=state)
    _, after = await receiver.until(reference, 2)
    assert after.headers["webhook-id"] == before.headers["webhook-id"]


async def test_a_consignment_survives_a_kill(launch, tmp_path, reference):
    address = CourierAddress(recipient="A", line1="B", city="C", postal_code="1000", country="SE")
    state = str(tmp_path / "state")
    first = launch("courier", STATE_FILE=state)
    courier = Courier(url=first.url, key=first.key)
    created = await courier.create(reference=reference, address=address, weight_grams=1)
    await courier.aclose()
    first.kill()
    second = launch("courier", STATE_FILE=state)
    courier = Courier(url=second.url, key=second.key)
    assert await courier.find_by_reference(reference) == created
    assert (await courier.cancel(created.value.id)).value.status is Status.CANCELLED
    await courier.aclose()


async def test_sigterm_ends_it_within_seconds_with_status_0_also_during_a_request(launch, reference):
    process = launch("payment_provider")
    async with adapter_of(process) as provider:
        waiting = asyncio.create_task(authorize(provider, reference, "tok_timeout_then_charged"))
        while (await provider.find_by_reference(reference)).value is None:
            assert not waiting.done()
        assert await asyncio.to_thread(process.stop) == 0  # or it raises after 30 seconds
        assert isinstance(await waiting, Unknown)


def _said(**env):
    """Return the output of a simulator that cannot start."""
    ended = subprocess.run(
        [sys.executable, "-m", "mesh.simulators.courier"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)} | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stdout == ""
    return ended.stderr


GOOD = {"LISTEN": "127.0.0.1:0", "API_KEY": "key"}


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"LISTEN": "127.0.0.1:0"}, "API_KEY is not set"),
        (GOOD | {"LISTEN": "8080"}, "LISTEN is not host:port"),
        (GOOD | {"STATE_FILE": "/proc/no/such/folder"}, "STATE_FILE cannot be used"),
        (GOOD | {"WEBHOOK_URL": "http://127.0.0.1:1/"}, "WEBHOOK_SECRET is not set"),
        (GOOD | {"WEBHOOK_URL": "http://127.0.0.1:1/", "WEBHOOK_SECRET": "secret"}, "WEBHOOK_SECRET is not whsec_"),
        (GOOD | {"FAULTS": '{"delay_ms": -1}'}, "FAULTS"),
        (GOOD | {"FAULTS": "{"}, "FAULTS"),
    ],
)
async def test_a_configuration_error_is_reported_in_one_line(env, said):
    line = await asyncio.to_thread(_said, **env)
    assert said in line
    assert line.count("\n") == 1


async def test_a_port_in_use_is_reported(launch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        line = await asyncio.to_thread(_said, **GOOD | {"LISTEN": listen})
    assert f"LISTEN={listen} cannot be used: Address already in use" in line
