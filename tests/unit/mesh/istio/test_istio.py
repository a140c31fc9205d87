"""The Istio configuration is the policy: nothing differs, and each planted disagreement is found."""

import copy

import pytest
from typer.testing import CliRunner

from mesh.cli.mesh import mesh
from mesh.istio import render
from mesh.istio.comparison import disagreements
from mesh.istio.reading import Cluster
from mesh.policy.compiler import compile_policy

RESERVE = "/shop.inventory.v1.InventoryService/ReserveStock"
GET_ORDER = "/shop.order.v1.OrderService/GetOrder"
LOGIN = "/shop.user.v1.AuthService/Login"


@pytest.fixture(scope="module")
def policy():
    return compile_policy()


@pytest.fixture(scope="module")
def rendered(policy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("istio")
    render.write(render.files(policy), folder)
    return list(render.read(folder))


@pytest.fixture
def objects(rendered):
    """The rendered objects, to be changed at will."""
    return copy.deepcopy(rendered)


def the(objects, kind, name):
    (found,) = [one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def route_of(objects, name, path):
    routes = the(objects, "VirtualService", name)["spec"]["http"]
    return next(route for route in routes if {"exact": path} in [match.get("uri") for match in route["match"]])


def rule_of(objects, name, path):
    rules = the(objects, "AuthorizationPolicy", name)["spec"]["rules"]
    return next(rule for rule in rules if path in rule["to"][0]["operation"]["paths"])


def test_every_call_and_limit_agrees_with_the_policy(policy, objects):
    assert disagreements(policy, Cluster(objects)) == []
    assert sum(decision.allowed for decision in policy.decisions().values()) > 150


def test_the_files_are_the_same_in_every_process(policy):
    assert render.files(policy) == render.files(compile_policy())


def a_caller_too_many(objects):
    source = rule_of(objects, "svc-inventory", RESERVE)["from"][0]["source"]
    source["principals"].append("cluster.local/ns/shop/sa/svc-catalog")


def a_caller_too_few(objects):
    rule_of(objects, "svc-inventory", RESERVE)["from"][0]["source"]["principals"] = ["cluster.local/ns/shop/sa/x"]


def every_caller(objects):
    del rule_of(objects, "svc-inventory", RESERVE)["from"]


def a_method_too_many(objects):
    rule_of(objects, "svc-order", GET_ORDER)["to"][0]["operation"]["paths"].append("/shop.order.v1.OrderService/*")
    rule_of(objects, "svc-inventory", RESERVE)["to"][0]["operation"]["paths"].append("*")


def a_missing_policy(objects):
    objects.remove(the(objects, "AuthorizationPolicy", "svc-inventory"))
    objects.remove(the(objects, "AuthorizationPolicy", "deny-by-default"))


def a_deny(objects):
    rules = [{"to": [{"operation": {"paths": [LOGIN]}}]}]
    spec = {"selector": {"matchLabels": {"app": "svc-user"}}, "action": "DENY", "rules": rules}
    objects.append(the(objects, "AuthorizationPolicy", "svc-user") | {"spec": spec})


def a_retry_too_many(objects):
    route_of(objects, "svc-user", LOGIN)["retries"]["attempts"] = 1


def the_retries_of_istio(objects):
    del route_of(objects, "svc-user", LOGIN)["retries"]


def another_timeout(objects):
    route_of(objects, "svc-order", GET_ORDER)["timeout"] = "2s"


def no_timeout(objects):
    del route_of(objects, "svc-order", GET_ORDER)["timeout"]


def another_timeout_at_the_entry(objects):
    route_of(objects, "ingress", GET_ORDER)["timeout"] = "15s"


def a_route_to_another_service(objects):
    destination = route_of(objects, "svc-order", GET_ORDER)["route"][0]["destination"]
    destination["host"] = "svc-user.shop.svc.cluster.local"


def a_route_that_hides_others(objects):
    routes = the(objects, "VirtualService", "svc-inventory")["spec"]["http"]
    routes.insert(0, {**routes[-1], "match": [{"uri": {"prefix": "/shop.inventory.v1."}}]})


def a_sidecar_that_hides_a_service(objects):
    hosts = the(objects, "Sidecar", "svc-order")["spec"]["egress"][0]["hosts"]
    hosts.remove("./svc-inventory.shop.svc.cluster.local")


def plain_text(objects):
    the(objects, "PeerAuthentication", "default")["spec"]["mtls"]["mode"] = "PERMISSIVE"


def plain_text_at_one_port(objects):
    the(objects, "PeerAuthentication", "default")["spec"]["portLevelMtls"] = {"9000": {"mode": "DISABLE"}}


def plain_text_for_one_workload(objects):
    spec = {"selector": {"matchLabels": {"app": "svc-user"}}, "mtls": {"mode": "DISABLE"}}
    objects.append(the(objects, "PeerAuthentication", "default") | {"spec": spec})


def plain_text_to_one_service(objects):
    the(objects, "DestinationRule", "svc-user")["spec"]["trafficPolicy"]["tls"]["mode"] = "DISABLE"


def another_breaker(objects):
    pool = the(objects, "DestinationRule", "svc-payment")["spec"]["trafficPolicy"]["connectionPool"]
    pool["http"]["http2MaxRequests"] = 10


def no_ejection(objects):
    del the(objects, "DestinationRule", "svc-payment")["spec"]["trafficPolicy"]["outlierDetection"]


def a_condition_that_is_not_understood(objects):
    rule_of(objects, "svc-inventory", RESERVE)["when"] = [{"key": "source.ip", "values": ["10.0.0.1"]}]


PLANTED = (
    a_caller_too_many, a_caller_too_few, every_caller, a_method_too_many, a_missing_policy, a_deny, a_retry_too_many,
    the_retries_of_istio, another_timeout, no_timeout, another_timeout_at_the_entry, a_route_to_another_service,
    a_route_that_hides_others, a_sidecar_that_hides_a_service, plain_text, plain_text_at_one_port,
    plain_text_for_one_workload, plain_text_to_one_service, another_breaker, no_ejection,
    a_condition_that_is_not_understood,
)  # fmt: skip


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_disagreement_is_found(policy, objects, plant):
    """Without it there is none: see above."""
    plant(objects)
    assert disagreements(policy, Cluster(objects)) != []


def test_a_method_that_is_not_idempotent_says_that_it_is_not_repeated(objects):
    """Istio repeats twice where a route says nothing."""
    assert route_of(objects, "svc-user", LOGIN)["retries"] == {"attempts": 0}


def test_only_a_service_without_public_methods_rejects_tokens_before_it_sees_them(objects, policy):
    """A RequestAuthentication rejects an expired token, which a public method such as RefreshToken ignores."""
    names = {one["metadata"]["name"] for one in objects if one["kind"] == "RequestAuthentication"}
    public = {method.workload for method in policy.methods.values() if method.access.value == "public"}
    assert names == {w.account for w in policy.workloads.values() if w.methods and w.name not in public}


def test_a_service_reaches_outside_only_what_the_deployment_names(objects):
    hosts = {one["metadata"]["name"]: one["spec"]["egress"][0]["hosts"] for one in objects if one["kind"] == "Sidecar"}
    payment = "./api.payment-provider.example.com"
    assert [name for name, reached in hosts.items() if payment in reached] == ["svc-payment"]
    assert all("./postgresql.example.internal" in reached for name, reached in hosts.items() if name != "edge-gateway")
    assert not any("*" in host for reached in hosts.values() for host in reached)


def test_render_writes_and_check_finds_what_was_edited(tmp_path, policy):
    run = CliRunner().invoke
    folder = ("--folder", str(tmp_path))
    assert run(mesh, ["render", "--check", *folder]).exit_code == 1
    assert run(mesh, ["render", *folder]).exit_code == 0
    assert run(mesh, ["render", "--check", *folder]).exit_code == 0
    assert run(mesh, ["check", *folder]).exit_code == 0
    file = tmp_path / "svc-order.yaml"
    file.write_text(file.read_text().replace("timeout: 2.25s", "timeout: 2s"))
    (tmp_path / "svc-old.yaml").write_text("")
    edited = run(mesh, ["check", *folder])
    assert edited.exit_code == 1
    assert f"ingress -> {GET_ORDER}" not in edited.stderr, "its route is in ingress.yaml"
    assert f"edge_gateway -> {GET_ORDER}: allowed for 2 s with 2 retries instead of" in edited.stderr
    assert "svc-old.yaml is not what" in edited.stderr


def test_who_shows_the_callers_of_a_method():
    shown = CliRunner().invoke(mesh, ["who", "ReserveStock", "--json"])
    assert '"callers": [\n      "svc_order"\n    ]' in shown.stdout
    assert '"timeout": "3.25 s"' in shown.stdout
