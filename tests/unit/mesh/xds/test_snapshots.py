"""A snapshot does what the policy says: each call is compared, and each planted disagreement is found."""

import dataclasses
from datetime import timedelta

import pytest
from envoy_data_plane.envoy.config.cluster import v3 as cluster
from envoy_data_plane.envoy.config.listener import v3 as listener
from envoy_data_plane.envoy.config.route import v3 as route

from mesh.pki.authority import Authority
from mesh.pki.rotation import Rotation
from mesh.policy.compiler import compile_policy
from mesh.policy.deployment import Deployment
from mesh.xds import listeners, routes, snapshots
from mesh.xds.reading import Proxies
from mesh.xds.resources import CDS, EDS, LDS, RDS, SDS, resource
from mesh.xds.routes import RBAC_FILTER, _admit
from mesh.xds.snapshots import Placement, Process

RESERVE = "/shop.inventory.v1.InventoryService/ReserveStock"
LOGIN = "/shop.user.v1.AuthService/Login"


@pytest.fixture(scope="module")
def policy():
    return compile_policy()


@pytest.fixture(scope="module")
def rotation(policy, tmp_path_factory):
    authority = Authority.open(tmp_path_factory.mktemp("pki") / "pki", policy.deployment.trust_domain)
    return Rotation(authority, map(policy.spiffe_id, policy.workloads))


@pytest.fixture(scope="module")
def topology(policy):
    return {
        name: Placement(
            (Process(f"unix:/run/{name}.sock", f"127.0.0.1:{9_000 + n}"),) if workload.methods else (),
            {callee: f"unix:/run/{name}.{callee}" for callee in policy.callees(name)},
        )
        for n, (name, workload) in enumerate(policy.workloads.items())
    }


@pytest.fixture(scope="module")
def shared(policy, topology, rotation):
    return snapshots.snapshot_of(policy, topology, rotation, list(topology))


def disagreements(policy, snapshot, *paths):
    proxies = Proxies(dict.fromkeys(policy.workloads, snapshot))
    return [
        (caller, path)
        for (caller, path), wanted in policy.decisions().items()
        if (path in paths or not paths) and proxies.decide(caller, policy.spiffe_id(caller), path) != wanted
    ]


def test_each_call_agrees_with_the_policy(policy, shared):
    assert disagreements(policy, shared) == []


def changed(snapshot, kind, name, form, change):
    """The snapshot with one message changed."""
    message = form.parse(snapshot[kind][name].resource.value)
    change(message)
    copied = {each: dict(of_kind) for each, of_kind in snapshot.items()}
    copied[kind][name] = resource(name, message)
    return copied


def the_route(table, path):
    return next(one for one in table.virtual_hosts[0].routes if one.match.path == path)


def a_caller_too_many(table):
    the_route(table, RESERVE).typed_per_filter_config[RBAC_FILTER] = _admit(
        ("spiffe://cluster.local/ns/shop/sa/svc-order", "spiffe://cluster.local/ns/shop/sa/edge-gateway")
    )


def no_rule(table):
    the_route(table, RESERVE).typed_per_filter_config = {}


def no_caller(table):
    the_route(table, RESERVE).typed_per_filter_config[RBAC_FILTER] = _admit(())


def a_missing_route(table):
    table.virtual_hosts[0].routes.remove(the_route(table, RESERVE))


@pytest.mark.parametrize("plant", [a_caller_too_many, no_rule, no_caller, a_missing_route])
def test_a_planted_disagreement_of_the_called_side_is_found(policy, shared, plant):
    planted = changed(shared, RDS, "inbound/svc_inventory/1", route.RouteConfiguration, plant)
    assert {path for _, path in disagreements(policy, planted, RESERVE, LOGIN)} == {RESERVE}


def a_retry_too_many(table):
    action = the_route(table, LOGIN).route
    action.retry_policy = routes.repeats(Deployment.read().retries, None)


def another_timeout(table):
    the_route(table, LOGIN).route.max_stream_duration.max_stream_duration = timedelta(seconds=1)


def another_service(table):
    the_route(table, LOGIN).route.cluster = "edge_gateway/svc_order"


@pytest.mark.parametrize("plant", [a_retry_too_many, another_timeout, another_service])
def test_a_planted_disagreement_of_the_calling_side_is_found(policy, shared, plant):
    planted = changed(shared, RDS, "outbound/edge_gateway/svc_user", route.RouteConfiguration, plant)
    assert disagreements(policy, planted, RESERVE, LOGIN) == [("edge_gateway", LOGIN)]


def plain_text(found):
    found.filter_chains[0].transport_socket = None


def allowed_by_default(found):
    found.filter_chains[0].filters = [listeners._manager("x", [], [])]


@pytest.mark.parametrize("plant", [plain_text, allowed_by_default])
def test_a_listener_that_is_not_strict_is_found(policy, shared, plant):
    planted = changed(shared, LDS, "inbound/svc_inventory/1", listener.Listener, plant)
    assert ("svc_order", RESERVE) in disagreements(policy, planted, RESERVE)


def test_versions_are_the_same_in_every_process(policy, topology, rotation, shared):
    for cached in (routes.outbound_table, routes.inbound_table, listeners.inbound_listener, routes._admit):
        cached.cache_clear()
    again = snapshots.snapshot_of(policy, dict(reversed(topology.items())), rotation, ["svc_user"])
    versions = {(kind, name): one.version for kind, found in again.items() for name, one in found.items()}
    assert len(versions) > 5
    assert versions == {(kind, name): shared[kind][name].version for kind, name in versions}


def test_only_what_a_change_touches_gets_another_version(policy, topology, rotation, shared):
    def different(after):
        return {(k, n) for k, of in after.items() for n, r in of.items() if r.version != shared[k][n].version}

    moved = Placement((Process("unix:/run/x.sock", "127.0.0.1:1"),), topology["svc_user"].outbound)
    after = snapshots.snapshot_of(policy, topology | {"svc_user": moved}, rotation, list(topology))
    own = "inbound/svc_user/1"
    assert different(after) == {(EDS, "svc_user"), (EDS, own), (LDS, own)}

    workload = policy.workloads["svc_user"]
    slower = tuple(dataclasses.replace(m, timeout=9.0) if m.path == LOGIN else m for m in workload.methods)
    changed = policy.workloads | {"svc_user": dataclasses.replace(workload, methods=slower)}
    after = snapshots.snapshot_of(dataclasses.replace(policy, workloads=changed), topology, rotation, list(topology))
    callers = {name for name in policy.workloads if "svc_user" in policy.callees(name)}
    assert different(after) == {(RDS, f"outbound/{name}/svc_user") for name in callers}


def test_a_sidecar_has_the_key_of_its_own_workload_alone(policy, topology, rotation):
    own = snapshots.snapshot_of(policy, topology, rotation, ["svc_order"])
    assert set(own[SDS]) == {"bundle", "identity/svc_order"}
    called = {f"outbound/svc_order/{name}" for name in policy.callees("svc_order")}
    assert set(own[LDS]) == {"inbound/svc_order/1", *called}
    assert {name.partition("/")[0] for name in own[CDS]} == {"inbound", "svc_order"}


def test_breakers_grow_with_processes_and_a_single_one_is_never_ejected(policy, topology, rotation):
    def called(snapshot):
        return cluster.Cluster.parse(snapshot[CDS]["svc_order/svc_user"].resource.value)

    processes = tuple(Process(f"unix:/run/{n}.sock", f"127.0.0.1:{n}") for n in (1, 2, 3))
    three = topology | {"svc_user": Placement(processes)}
    one, more = (called(snapshots.snapshot_of(policy, each, rotation, ["svc_order"])) for each in (topology, three))
    assert one.outlier_detection is None
    assert more.outlier_detection.consecutive_5xx == 5
    calls = policy.workloads["svc_user"].limits.breakers.calls
    assert [max(t.max_requests for t in it.circuit_breakers.thresholds) for it in (one, more)] == [calls, 3 * calls]
