"""Each process is stopped under load, as one that hangs: it is replaced, others take over, and every order ends."""

import os
import signal

import pytest

from mesh.services import SERVICES
from mesh.stack.scrapes import key, scrape
from tests.e2e.shopping import all_is_well, back, record_of, shopping
from tests.e2e.stacks import Cli, cleaned, until

#: The liveness probes are quicker than by default, so that each stall takes less time.
OPTIONS = ("--port-base", "0", "--probe-seconds", "0.5", "--replicas", "svc_order=2")
ORDER_PROCESSES = ("svc_order", "svc_order-2")
NAMES = (
    *("ingress", "edge_gateway", *SERVICES, "svc_order-2"),
    *("payment_provider", "courier", "message_sender", "redis", "redis_cache", "postgres"),
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    with cleaned(Cli(tmp_path_factory.mktemp("stalls"))) as cli:
        cli.json("up", "--detach", *OPTIONS)
        yield cli


@pytest.fixture(scope="module")
def load(stack, tmp_path_factory):
    arguments = ("--mix", "faults", "--concurrency", "12", "--rate", "1", "--seconds", "900")
    with shopping(stack, tmp_path_factory.mktemp("load"), *arguments) as load:
        until(lambda: load.history.exists() and confirmed(load))
        yield load


def confirmed(load):
    return load.history.read_text().count('"state": "CONFIRMED"')


def leads(stack, name):
    """Whether a process publishes the outbox of its service."""
    process = record_of(stack, name)
    return "\noutbox_relay_leader 1.0" in scrape([process]).get(key(process), "")


def test_every_process_is_among_those_that_are_stopped(stack):
    assert {one.name for one in stack.state.read().processes} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
async def test_a_stopped_process_is_replaced_and_orders_go_on(stack, load, name):
    before = record_of(stack, name)
    os.kill(before.pid, signal.SIGSTOP)
    if name in ORDER_PROCESSES:
        (other,) = {*ORDER_PROCESSES} - {name}
        until(lambda: leads(stack, other))
    await back(stack, name, before.restarts + 1)
    seen = confirmed(load)
    until(lambda: confirmed(load) > seen)


async def test_after_all_stalls_every_order_has_ended_and_all_invariants_hold(stack, load):
    info = load.end()
    assert info["orders"].get("CONFIRMED")
    await all_is_well(stack, load.history)
    assert {one.state for one in stack.state.read().processes} == {"ready"}
