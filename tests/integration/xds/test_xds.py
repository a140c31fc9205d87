"""Real Envoys under the control plane: calls, rejections, changes while calls run, and outages of the control plane."""

import asyncio
import dataclasses
import json
import socket
import ssl
from collections import Counter
from contextlib import suppress
from datetime import timedelta

import grpc
import grpc.aio
import httpx
import pytest
from cryptography import x509
from envoy_data_plane.envoy.config.listener import v3 as listener

from chassis.testing import eventually
from mesh.pki.authority import Authority
from mesh.policy.table import HEALTH
from mesh.xds.resources import LDS, resource
from mesh.xds.routes import PEER_HEADER
from mesh.xds.server import NACKS
from mesh.xds.snapshots import Placement, Process
from tests.integration.servers.stand_ins import SERVING

pytestmark = pytest.mark.asyncio(loop_scope="session")

RESERVE = "/shop.inventory.v1.InventoryService/ReserveStock"
GET_STOCK = "/shop.inventory.v1.InventoryService/GetStock"
LOGIN = "/shop.user.v1.AuthService/Login"
JWKS = "/shop.user.v1.AuthService/GetJwks"
OPTIONS = (("grpc.default_authority", "mesh"), ("grpc.enable_retries", 0))


def channel(mesh, caller, path):
    callee = "svc_user" if "AuthService" in path else "svc_inventory"
    return grpc.aio.insecure_channel(mesh.out(caller, callee), options=OPTIONS)


async def call(mesh, caller, path, *metadata):
    async with channel(mesh, caller, path) as it:
        return json.loads(await it.unary_unary(path)(b"", metadata=metadata, timeout=30))


async def code_of(mesh, caller, path, *metadata):
    try:
        await call(mesh, caller, path, *metadata)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("caller", ["edge_gateway", "whole"], ids=["delta", "state of the world"])
async def test_a_call_reaches_the_service_with_the_identity_of_its_caller(mesh, caller):
    spoofed = (
        (PEER_HEADER, "spiffe://cluster.local/ns/shop/sa/svc-order"),
        ("x-forwarded-client-cert", "URI=spiffe://x"),
    )
    seen = await call(mesh, caller, GET_STOCK, *spoofed)
    assert seen["metadata"][PEER_HEADER] == "spiffe://cluster.local/ns/shop/sa/edge-gateway"
    assert "x-forwarded-client-cert" not in seen["metadata"]


async def test_a_method_admits_the_callers_that_the_contract_names_and_no_other(mesh, called):
    assert await code_of(mesh, "svc_order", RESERVE) is grpc.StatusCode.OK
    assert await code_of(mesh, "edge_gateway", RESERVE) is grpc.StatusCode.PERMISSION_DENIED
    assert await code_of(mesh, "whole", RESERVE) is grpc.StatusCode.PERMISSION_DENIED
    assert sum(sum(one.values()) for one in called.inventories) == 1


@pytest.mark.parametrize(
    "path",
    [
        "/shop.inventory.v1.InventoryService/Nothing",
        "/shop.inventory.v1.InventoryService/reservestock",
        "/shop.inventory.v1.InventoryService/ReserveStock/",
        "//shop.inventory.v1.InventoryService/ReserveStock",
        "/shop.payment.v1.PaymentService/GetPayment",  # of a service that is not there
    ],
)
async def test_another_path_is_unimplemented(mesh, path):
    assert await code_of(mesh, "svc_order", path) is grpc.StatusCode.UNIMPLEMENTED


async def test_only_those_who_carry_calls_from_outside_may_read_the_health_of_a_service(mesh):
    async with channel(mesh, "edge_gateway", HEALTH) as it:
        assert await it.unary_unary(HEALTH)(b"") == SERVING
    assert await code_of(mesh, "svc_order", HEALTH) is grpc.StatusCode.PERMISSION_DENIED


async def test_a_retried_call_goes_to_another_process_and_a_change_without_a_key_is_not_repeated(mesh, called):
    assert await code_of(mesh, "svc_order", RESERVE, ("do", "unavailable")) is grpc.StatusCode.UNAVAILABLE
    assert sorted(one[RESERVE] for one in called.inventories) == [1, 2]
    assert await code_of(mesh, "edge_gateway", LOGIN, ("do", "unavailable")) is grpc.StatusCode.UNAVAILABLE
    assert called.users[LOGIN] == 1


async def test_the_timeout_of_the_contract_applies(mesh):
    policy = mesh.policy
    workload = policy.workloads["svc_user"]
    brief = tuple(dataclasses.replace(one, timeout=0.05, idempotent=False) for one in workload.methods)
    workloads = policy.workloads | {"svc_user": dataclasses.replace(workload, methods=brief)}
    mesh.publish(policy=dataclasses.replace(policy, workloads=workloads))
    await eventually(lambda: code_of(mesh, "svc_order", JWKS, ("do", "hang")), lambda code: code in _TOO_LATE)


_TOO_LATE = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)

# Hostile peers, straight at the listener of a service


def tls(mesh, identity=None, authority=None):
    """TLS with this identity, by this authority, which accepts any server of the mesh."""
    context = ssl.create_default_context(cadata=mesh.rotation.trust_bundle.decode())
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    if identity:
        path = mesh.folder / "client.pem"
        path.touch(mode=0o600)
        path.write_bytes(identity.chain + identity.key)
        context.load_cert_chain(path)
    return context


async def post(mesh, context, path, **headers):
    """Return the gRPC status of a call straight to the first process of svc_inventory."""
    base = f"https://{mesh.topology['svc_inventory'].processes[0].inbound}"
    async with httpx.AsyncClient(http1=False, http2=True, verify=context) as client:
        sent = {"content-type": "application/grpc", "te": "trailers", **headers}
        reply = await client.post(base + path, content=b"\0\0\0\0\0", headers=sent)
    return reply.headers.get("grpc-status"), reply.status_code


async def test_plain_text_is_not_answered(mesh, called):
    host, _, port = mesh.topology["svc_inventory"].processes[0].inbound.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
    data = b""
    with suppress(ConnectionError):
        data = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    assert b"\0\0\0\4" not in data, "no HTTP/2 settings"
    assert called.inventories == [Counter(), Counter()]


async def test_a_client_without_a_certificate_of_the_mesh_is_rejected(mesh, called, tmp_path):
    other = Authority.open(tmp_path / "pki", "cluster.local")
    stranger = other.issue(mesh.policy.spiffe_id("svc_order"), timedelta(hours=1))
    past = mesh.authority.issue(mesh.policy.spiffe_id("svc_order"), timedelta(seconds=-30))
    for identity in (None, stranger, past):
        with pytest.raises((httpx.HTTPError, ssl.SSLError, OSError)):
            await post(mesh, tls(mesh, identity), RESERVE)
    assert called.inventories == [Counter(), Counter()]


async def test_the_right_authority_with_the_wrong_identity_is_denied(mesh, called):
    wrong = mesh.rotation.identities[mesh.policy.spiffe_id("svc_user")]
    spoofed = {PEER_HEADER: mesh.policy.spiffe_id("svc_order"), "x-shop-caller": "svc_order"}
    assert await post(mesh, tls(mesh, wrong), RESERVE, **spoofed) == ("7", 200)
    right = mesh.rotation.identities[mesh.policy.spiffe_id("svc_order")]
    assert await post(mesh, tls(mesh, right), RESERVE) == (None, 200)
    assert await post(mesh, tls(mesh, right), RESERVE.replace("/Reserve", "%2FReserve")) != (None, 200)
    assert sum(one.total() for one in called.inventories) == 1


# Changes while calls run


async def test_a_revoked_caller_is_denied_on_its_open_connection(mesh):
    policy = mesh.policy
    workload = policy.workloads["svc_inventory"]
    revoked = tuple(
        dataclasses.replace(one, callers=("svc_user",)) if one.path == RESERVE else one for one in workload.methods
    )
    workloads = policy.workloads | {"svc_inventory": dataclasses.replace(workload, methods=revoked)}
    async with channel(mesh, "svc_order", RESERVE) as it:
        reserve = it.unary_unary(RESERVE)
        await reserve(b"")
        mesh.publish(policy=dataclasses.replace(policy, workloads=workloads))

        async def code():
            try:
                await reserve(b"")
            except grpc.aio.AioRpcError as error:
                return error.code()
            return grpc.StatusCode.OK

        await eventually(code, lambda found: found is grpc.StatusCode.PERMISSION_DENIED)


async def test_a_moved_process_gets_the_calls_and_none_fails(mesh, called):
    user = mesh.topology["svc_user"]
    other = mesh.inventories[1]
    moved = Placement(
        (Process(mesh.topology["svc_inventory"].processes[1].address, user.processes[0].inbound),), user.outbound
    )
    before = other.calls[JWKS]
    async with channel(mesh, "svc_order", JWKS) as it:
        fetch = it.unary_unary(JWKS)
        await fetch(b"")
        mesh.publish(topology=mesh.topology | {"svc_user": moved})

        async def arrives():
            await fetch(b"")
            return other.calls[JWKS] > before

        await eventually(arrives)


async def test_certificates_are_replaced_while_calls_run_and_none_fails(mesh):
    identity = mesh.policy.spiffe_id("svc_inventory")
    host, _, port = mesh.topology["svc_inventory"].processes[0].inbound.rpartition(":")

    def shown():
        with socket.create_connection((host, int(port)), 10) as raw, tls(mesh).wrap_socket(raw) as secure:
            return x509.load_der_x509_certificate(secure.getpeercert(binary_form=True)).serial_number

    stop = asyncio.Event()
    done = Counter()

    async def load():
        while not stop.is_set():
            done[await code_of(mesh, "svc_order", RESERVE)] += 1

    loads = [asyncio.create_task(load()) for _ in range(4)]
    for _ in range(3):
        for name in mesh.rotation.identities:
            mesh.rotation._identities[name] = mesh.authority.issue(name, timedelta(hours=1))
        mesh.publish()
        serial = mesh.rotation.identities[identity].serial
        await eventually(lambda: asyncio.to_thread(shown), lambda seen, serial=serial: seen == serial)
    stop.set()
    await asyncio.gather(*loads)
    assert set(done) == {grpc.StatusCode.OK}


async def test_a_changed_cluster_is_used_as_soon_as_its_endpoints_are_sent_again(mesh):
    policy = mesh.policy
    workload = policy.workloads["svc_inventory"]
    breakers = dataclasses.replace(workload.limits.breakers, pending=1_999)
    limits = dataclasses.replace(workload.limits, breakers=breakers)
    changed = policy.workloads | {"svc_inventory": dataclasses.replace(workload, limits=limits)}
    await eventually(lambda: all(one.in_sync for one in mesh.plane.nodes))
    mesh.publish(policy=dataclasses.replace(policy, workloads=changed))
    await eventually(lambda: stat(mesh, "cluster_manager.warming_clusters"), lambda value: value == 0)
    await eventually(lambda: breaker_limit(mesh), lambda limit: limit == 1_999)
    timeouts = await admin(mesh, "/stats", filter=r"init_fetch_timeout$")
    assert [one for one in timeouts["stats"] if one["value"]] == [], "a cluster waited in vain for its endpoints"
    assert await code_of(mesh, "svc_order", RESERVE) is grpc.StatusCode.OK


async def test_a_rejected_resource_is_reported_and_the_last_good_one_stays(mesh):
    good = mesh.plane._snapshots["shared"]
    broken = {kind: dict(found) for kind, found in good.items()}
    message = parsed(good[LDS]["outbound/svc_order/svc_inventory"])
    message.address.pipe.path = "x" * 300
    broken[LDS]["outbound/svc_order/svc_inventory"] = resource("outbound/svc_order/svc_inventory", message)
    before = NACKS.labels(node="shared", type="Listener")._value.get()
    mesh.plane.publish(mesh.plane._snapshots | {"shared": broken})

    def rejected():
        return [nack for node in mesh.plane.nodes if node.node == "shared" for nack in node.nacks]

    (nack,) = await eventually(rejected)
    assert (nack.name, nack.type_url) == ("outbound/svc_order/svc_inventory", LDS)
    assert nack.reason
    assert NACKS.labels(node="shared", type="Listener")._value.get() == before + 1
    assert await code_of(mesh, "svc_order", RESERVE) is grpc.StatusCode.OK
    mesh.publish()
    await eventually(lambda: not rejected())
    await eventually(lambda: all(one.in_sync for one in mesh.plane.nodes))


async def test_calls_go_on_without_the_control_plane_which_resends_nothing_when_it_is_back(mesh):
    await eventually(lambda: all(one.in_sync for one in mesh.plane.nodes))
    before = (
        await stat(mesh, "cluster_manager.cluster_modified"),
        await stat(mesh, "listener_manager.listener_modified"),
    )
    await mesh.stop_control_plane()
    assert await code_of(mesh, "svc_order", RESERVE) is grpc.StatusCode.OK
    await mesh.start_control_plane()
    await eventually(lambda: {one.node for one in mesh.plane.nodes} == {"shared", "whole"})
    await eventually(lambda: all(one.in_sync for one in mesh.plane.nodes))
    after = await stat(mesh, "cluster_manager.cluster_modified"), await stat(mesh, "listener_manager.listener_modified")
    assert after == before
    moved = Placement(mesh.topology["svc_inventory"].processes[:1], mesh.topology["svc_inventory"].outbound)
    mesh.publish(topology=mesh.topology | {"svc_inventory": moved})
    await eventually(lambda: members(mesh), lambda count: count == 1)


async def test_the_socket_of_the_control_plane_is_for_its_owner_alone(mesh):
    """Private keys travel on it."""
    assert mesh.control_plane.stat().st_mode & 0o077 == 0
    for name in ("shared.pb", "whole.pb"):
        assert b"PRIVATE" not in (mesh.folder / name).read_bytes()


async def test_connections_are_logged_with_the_peer_and_the_reason(mesh):
    await code_of(mesh, "edge_gateway", RESERVE)
    log = mesh.folder / "shared.log"

    def denied():
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["path"] == RESERVE and line["grpc_status"] == "PERMISSION_DENIED"]

    line = (await eventually(denied))[0]
    assert line["peer"] == "spiffe://cluster.local/ns/shop/sa/edge-gateway"


def parsed(one):
    return listener.Listener.parse(one.resource.value)


async def admin(mesh, path, **params):
    transport = httpx.AsyncHTTPTransport(uds=f"{mesh.folder}/shared.admin")
    async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
        return (await client.get(path, params={"format": "json", **params})).json()


async def stat(mesh, name):
    (found,) = (await admin(mesh, "/stats", filter=f"^{name}$"))["stats"]
    return found["value"]


async def cluster(mesh, name):
    return next(one for one in (await admin(mesh, "/clusters"))["cluster_statuses"] if one["name"] == name)


async def breaker_limit(mesh):
    (default, *_) = (await cluster(mesh, "svc_order/svc_inventory"))["circuit_breakers"]["thresholds"]
    return default["max_pending_requests"]


async def members(mesh):
    return len((await cluster(mesh, "svc_order/svc_inventory")).get("host_statuses", []))
