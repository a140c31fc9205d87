"""What a running stack guarantees to its users."""

import asyncio
import json
import os
import re
import signal
import struct
import subprocess
from contextlib import suppress

import grpc
import httpx
import psutil
import pytest
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from mesh.alerts.rules import firing
from mesh.alerts.scraping import samples, verified
from mesh.services import SERVICES
from mesh.stack.scrapes import scrape
from shop import services
from shop.user.v1 import auth_service_pb2
from tests.e2e.purchases.databases import database
from tests.e2e.stacks import COMMAND, get, until

SERVERS = {
    "postgres",
    "redis",
    "redis_cache",
    "payment_provider",
    "courier",
    "message_sender",
    "edge_gateway",
    "ingress",
}


def test_up_prints_every_address(stack):
    info = stack.info
    assert info["edge"] == f"http://{info['grpc']}"
    assert set(info["services"]) == set(SERVICES)
    assert {one["name"] for one in info["processes"]} == SERVERS | set(SERVICES)
    for one in info["processes"]:
        assert set(one) == {"name", "pid", "state", "address", "metrics", "restarts"}
        assert (one["state"], one["restarts"]) == ("ready", 0)
        assert psutil.pid_exists(one["pid"])


def test_status_prints_the_same_as_up(stack):
    assert stack.json("status") == stack.info | {"alerts": []}


def test_the_json_edge_answers_through_the_ingress(stack):
    reply = get(f"{stack.info['edge']}/v1/products")
    assert reply.status_code == 200
    assert reply.headers["server"] == "shopmesh"


def test_every_service_is_listed_by_reflection(stack):
    with grpc.insecure_channel(stack.info["grpc"]) as channel:
        names = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert set(services.SERVICES) <= set(names)


def test_nothing_listens_beyond_this_machine(stack):
    for one in stack.info["processes"]:
        for connection in psutil.Process(one["pid"]).net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip.removeprefix("::ffff:") == "127.0.0.1"


def test_no_secret_is_in_a_command_line_or_a_log(stack):
    secrets = json.loads((stack.folder / "secrets.json").read_text()).values()
    shown = [" ".join(psutil.Process(one["pid"]).cmdline()) for one in stack.info["processes"]]
    shown += [log.read_text(errors="replace") for log in (stack.folder / "logs").glob("*.log")]
    assert not [secret for secret in secrets for text in shown if secret in text]


def test_a_service_sees_neither_our_environment_nor_secrets_of_other_services(stack):
    secrets = json.loads((stack.folder / "secrets.json").read_text())
    environment = "".join(psutil.Process(stack.process("svc_catalog").pid).environ().values())
    accounts = {f"svc_catalog.{use}" for use in ("database", "publisher.redis", "consumer.redis", "cache.redis_cache")}
    assert accounts <= set(secrets)
    foreign = [value for name, value in secrets.items() if name not in accounts]
    assert not [value for value in foreign if value in environment]
    assert "SHOPMESH_STATE_DIR" not in psutil.Process(stack.process("svc_catalog").pid).environ()


def test_a_second_stack_in_the_same_folder_is_an_error(stack):
    for arguments in (("up",), ("up", "--detach")):
        done = stack.run(*arguments)
        assert done.returncode == 1
        assert "a stack is already running in" in done.stderr
        assert "shopmesh down" in done.stderr
    assert stack.json("status") == stack.info | {"alerts": []}


def test_ports_in_use_are_reported_with_their_process_and_no_process_is_left(stack, cli):
    taken = int(stack.info["grpc"].rpartition(":")[2])
    done = cli.run("up", "--port-base", str(taken - 80))
    assert done.returncode == 1
    assert f"port {taken}, which ingress needs, is in use by envoy (pid {stack.process('ingress').pid})" in done.stderr
    assert "--port-base" in done.stderr
    assert cli.alive == []
    assert cli.run("status").returncode == 3


def test_logs_are_kept_by_name(stack):
    assert "serving" in stack.run("logs", "svc_order").stdout
    everything = stack.run("logs", "-n", "5").stdout
    assert re.search(r"^svc_order +\| ", everything, re.MULTILINE)
    wrong = stack.run("logs", "nobody")
    assert wrong.returncode == 1
    assert "svc_order" in wrong.stderr


def test_logs_can_be_followed(stack):
    arguments = [COMMAND, "logs", "ingress", "--follow"]
    with subprocess.Popen(arguments, env=stack.environment, stdout=subprocess.PIPE, text=True) as follower:
        try:
            get(f"{stack.info['edge']}/v1/followed")
            assert any("/v1/followed" in line for line in follower.stdout)
        finally:
            follower.terminate()


def test_a_killed_service_is_restarted_and_counted(stack):
    before = stack.process("svc_catalog")
    stack.kill("svc_catalog")
    until(lambda: stack.process("svc_catalog").restarts == before.restarts + 1)
    until(lambda: stack.process("svc_catalog").state == "ready")
    assert stack.process("svc_catalog").pid != before.pid
    until(lambda: get(f"{stack.info['edge']}/v1/products").status_code == 200)


def test_a_killed_database_is_restarted(stack):
    stack.kill("postgres")
    until(lambda: stack.process("postgres").restarts)
    until(lambda: get(f"{stack.info['edge']}/v1/categories").status_code == 200)


def test_a_killed_ingress_is_restarted(stack):
    stack.kill("ingress")
    until(lambda: stack.process("ingress").restarts and stack.process("ingress").state == "ready")
    assert get(f"{stack.info['edge']}/v1/products").status_code == 200


@pytest.mark.parametrize("claim", ["svc_order", "edge"])
async def test_methods_for_services_cannot_be_reached_from_outside(stack, claim):
    async with grpc.aio.insecure_channel(stack.info["grpc"]) as channel:
        reserve = channel.unary_unary("/shop.inventory.v1.InventoryService/ReserveStock")
        with pytest.raises(grpc.aio.AioRpcError) as it:
            await asyncio.wait_for(reserve(b"", metadata=[("x-shop-caller", claim)]), 60)
    assert it.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_every_protocol_counts_against_one_limit(stack):
    """B2, P4: JSON, gRPC and gRPC-Web pass one counter, and a client cannot claim another address."""
    request = auth_service_pb2.RefreshTokenRequest(refresh_token="unknown")
    framed = struct.pack(">BI", 0, request.ByteSize()) + request.SerializeToString()
    path, claims = "/shop.user.v1.AuthService/RefreshToken", {"x-forwarded-for": "192.0.2.1"}

    async def by_json(http):
        body = {"refreshToken": request.refresh_token}
        return (await http.post("/v1/auth/refresh", json=body, headers=claims)).headers

    async def by_grpc_web(http):
        headers = claims | {"content-type": "application/grpc-web+proto"}
        return (await http.post(path, content=framed, headers=headers)).headers

    async def by_grpc(_http):
        async with grpc.aio.insecure_channel(stack.info["grpc"]) as channel:
            running = channel.unary_unary(path)(request.SerializeToString(), metadata=tuple(claims.items()))
            assert await running.code() is grpc.StatusCode.UNAUTHENTICATED
            return dict(await running.initial_metadata())

    async with httpx.AsyncClient(base_url=stack.info["edge"], timeout=30) as http:
        found = [await call(http) for call in (by_json, by_grpc, by_grpc_web, by_json)]
    left = [int(re.search(r"r=(\d+)", headers["ratelimit"])[1]) for headers in found]
    assert left == list(range(left[0], left[0] - 4, -1))


ORDERS = """
INSERT INTO orders (order_id, user_id, state, payment_state, fulfillment_state, currency, subtotal, shipping_fee,
    tax_total, total, shipping_address, slot_id, reservation_id, payment_id, version, create_time, update_time)
SELECT 'order-' || name, 'user', 'PENDING', 'PENDING', 'PENDING', 'THB', 1, 0, 0, 1, '', '', name, name, 1, past, past
FROM (VALUES ('parked'), ('stuck')) AS planted (name), (SELECT now() - interval '1 hour' AS past) AS at;
INSERT INTO saga (saga_id, order_id, state, step, attempts, next_attempt_time, reason, parked_from, version,
    payment_method_token, create_time, update_time)
SELECT 'saga-' || name, 'order-' || name, state, 'create_shipment', 1, now() + interval '1 day', 'PLANTED', 'RUNNING',
    1, '', past, past
FROM (VALUES ('parked', 'PARKED'), ('stuck', 'RUNNING')) AS planted (name, state),
    (SELECT now() - interval '1 hour' AS past) AS at"""
#: What plants a trouble in each database, and what ends it.
TROUBLES = {
    "shop_catalog": (
        """INSERT INTO dead_letter (consumer, event_id, topic, key, type, payload, attempts, error)
        VALUES ('svc_catalog', gen_random_uuid(), 't', 'k', 'x', '', 5, 'planted')""",
        "DELETE FROM dead_letter",
    ),
    "shop_inventory": (
        """INSERT INTO stock (sku, location_id, on_hand, allocated, shortfall, version)
        VALUES ('planted', 'x', 0, 3, 3, 0)""",
        "DELETE FROM stock",
    ),
    "shop_order": (ORDERS, "DELETE FROM saga; DELETE FROM orders"),
    # Without a relay: its events wait.
    "shop_delivery": ("REVOKE UPDATE ON relay FROM svc_delivery", "GRANT UPDATE ON relay TO svc_delivery"),
}
PLANTED = {
    *("DeadLetters", "StockOversold", "SagasParked", "SagasStuck", "OrdersStuck", "RelayWithoutLeader"),
    *("BackgroundWorkWaits", "InvariantViolated"),
}


def alerts(stack):
    """The alerts that fire now: what `status` shows, without the time that a command takes."""
    processes = stack.state.read().processes
    found = samples(processes, {}, scrape(processes)) + verified(stack.state)
    return {one.alert.name for one in firing(found)}


async def in_databases(stack, which):
    for name, statements in TROUBLES.items():
        async with database(stack, name) as connection:
            await connection.execute(statements[which])


async def test_planted_troubles_fire_their_alerts_until_they_end(stack):
    stopped = stack.process("svc_user").pid
    try:
        await in_databases(stack, 0)
        assert stack.run("verify", "--wait", "0").returncode == 1
        until(lambda: alerts(stack) >= PLANTED, 30)
        assert {one["name"] for one in stack.json("status")["alerts"]} >= PLANTED
        os.kill(stopped, signal.SIGSTOP)
        until(lambda: "ProcessDown" in alerts(stack), 30)
    finally:
        with suppress(ProcessLookupError):
            os.kill(stopped, signal.SIGCONT)
        await in_databases(stack, 1)
    assert stack.run("verify").returncode == 0
    until(lambda: not alerts(stack), 60)
