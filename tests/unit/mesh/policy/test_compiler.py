"""The policy is compiled from the contract and a deployment, or not at all."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet, MethodDescriptorProto

from mesh.policy.compiler import DESCRIPTORS, compile_policy
from mesh.policy.deployment import DEFAULT, Deployment, PolicyError
from mesh.policy.table import DENIED, Decision
from shop.contract import EDGE, RPCS, IdempotencyLevel
from shop.options.v1 import options_pb2

GET_ORDER = "/shop.order.v1.OrderService/GetOrder"
LOGIN = "/shop.user.v1.AuthService/Login"
RESERVE = "/shop.inventory.v1.InventoryService/ReserveStock"
WATCH_ORDER = "/shop.order.v1.OrderService/WatchOrder"


@pytest.fixture(scope="module")
def policy():
    return compile_policy()


def test_every_rpc_of_the_contract_is_a_method_with_its_callers_timeout_and_limit(policy):
    methods = policy.methods
    assert set(methods) == set(RPCS)
    for path, rpc in RPCS.items():
        method = methods[path]
        assert (method.access, method.roles, method.timeout) == (rpc.access, rpc.roles, rpc.timeout)
        assert method.rate_limit == rpc.rate_limit
        assert method.outside == rpc.admits(EDGE)
        assert method.idempotent == (rpc.idempotency_level is not IdempotencyLevel.UNKNOWN)
        assert {policy.caller(policy.spiffe_id(name)) for name in method.callers} == {
            name for name in (EDGE, *policy.workloads) if rpc.admits(name) and name not in policy.deployment.outside
        }


def test_calls_from_outside_come_from_the_ingress_and_from_the_edge(policy):
    assert policy.methods[GET_ORDER].callers == ("edge_gateway", "ingress")
    assert policy.callees("ingress") == policy.callees("edge_gateway")


def test_a_method_for_every_workload_admits_each_service(policy):
    assert set(policy.methods["/shop.user.v1.AuthService/GetJwks"].callers) == set(policy.workloads)


def test_an_identity_has_the_names_that_kubernetes_allows_and_is_found_again(policy):
    identity = policy.spiffe_id("svc_order")
    assert identity == "spiffe://cluster.local/ns/shop/sa/svc-order"
    assert policy.caller(identity) == "svc_order"
    assert policy.caller(policy.spiffe_id("ingress")) == EDGE
    assert policy.caller("spiffe://cluster.local/ns/shop/sa/svc-nowhere") == ""


def test_a_call_is_denied_unless_the_contract_names_its_caller(policy):
    assert policy.decide("svc_order", RESERVE) == Decision(allowed=True, timeout=3.25, attempts=2)
    assert policy.decide("ingress", RESERVE) == DENIED
    assert policy.decide("svc_order", "/shop.order.v1.OrderService/Nothing") == DENIED
    assert policy.decide("", GET_ORDER) == DENIED


def test_only_an_idempotent_call_is_tried_again_and_a_stream_has_the_longest_time(policy):
    assert policy.decide("ingress", LOGIN).attempts == 0
    assert policy.decide("ingress", WATCH_ORDER).timeout == 3600.0


def contract(path: str, change: Callable[[MethodDescriptorProto], None]) -> FileDescriptorSet:
    """The contract with one method changed."""
    service, _, method = path.strip("/").rpartition("/")
    found = FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())
    (chosen,) = [
        one
        for file in found.file
        for declared in file.service
        for one in declared.method
        if f"{file.package}.{declared.name}" == service and one.name == method
    ]
    change(chosen)
    return found


def options(method: MethodDescriptorProto):
    return method.options.Extensions[options_pb2.rpc]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda method: method.options.ClearExtension(options_pb2.rpc), "has no (shop.options.v1.rpc)"),
        (lambda method: options(method).ClearField("callers"), "names no callers"),
        (lambda method: options(method).ClearField("timeout"), "is unary and has no timeout"),
        (lambda method: options(method).callers.append("svc_nowhere"), "names the unknown caller 'svc_nowhere'"),
        (lambda method: setattr(options(method), "access", options_pb2.ACCESS_WORKLOAD), "has ACCESS_WORKLOAD, but"),
    ],
    ids=["no option", "no callers", "no timeout", "an unknown caller", "workloads from outside"],
)
def test_an_incomplete_contract_is_an_error_that_names_file_and_method(change, complaint):
    with pytest.raises(PolicyError) as it:
        compile_policy(contract(GET_ORDER, change))
    problem = next(line for line in str(it.value).splitlines() if complaint in line)
    assert problem.startswith("protos/shop/order/v1/order_service.proto:")
    assert "shop.order.v1.OrderService.GetOrder: " in problem


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("pending = 2000\n", "", "defaults.breakers.pending is missing"),
        ("pending = 2000", "pending = -1", "defaults.breakers.pending must be a whole number from 0, not -1"),
        ("pending = 2000", "pending = true", "defaults.breakers.pending must be a whole number"),
        ("interval = 2.0", 'interval = "2 s"', "defaults.ejection.interval must be a number from 0"),
        ("pending = 2000", "pending = 2000\nwaiting = 1", "no setting defaults.breakers.waiting"),
        ('namespace = "shop"', 'namespace = "shop"\nreplicas = 3', "no setting replicas"),
        ("[workloads.edge_gateway.breakers]", "[workloads.svc_nowhere.breakers]", "no workload svc_nowhere"),
        ("[workloads.edge_gateway.breakers]", "[workloads.svc_user.limits]", "no setting workloads.svc_user.limits"),
        ("calls = 3024", "calls = 1", "workloads.edge_gateway.breakers: calls_from_outside is more than calls"),
        (
            'callers = ["svc_delivery"]',
            'callers = ["svc_dlivery"]',
            "external.courier: there is no service svc_dlivery",
        ),
        ('callers = ["svc_delivery"]', "callers = 1", "external.courier.callers must be a list of names"),
        ('"ingress"]', '"svc_user"]', "svc_user cannot be outside"),
        ('trust_domain = "cluster.local"\n', "", "trust_domain, namespace and outside are required"),
        ("most_percent", "most_percent =", "Invalid"),
    ],
)
def test_a_deployment_with_a_mistake_is_an_error_that_names_the_key(tmp_path: Path, old, new, complaint):
    text = DEFAULT.read_text("utf-8")
    # The last one: the section of a workload stands after the defaults.
    before, found, after = text.rpartition(old) if old.startswith("calls") else text.partition(old)
    assert found
    (tmp_path / "deployment.toml").write_text(before + new + after, "utf-8")
    with pytest.raises(PolicyError, match=r"deployment\.toml: ") as it:
        compile_policy(deployment=Deployment.read(tmp_path / "deployment.toml"))
    assert complaint in str(it.value)


def test_what_a_deployment_says_of_one_workload_replaces_a_single_default(tmp_path: Path):
    text = DEFAULT.read_text("utf-8") + "\n[workloads.svc_payment.breakers]\ncalls = 850\n"
    (tmp_path / "deployment.toml").write_text(text, "utf-8")
    policy = compile_policy(deployment=Deployment.read(tmp_path / "deployment.toml"))
    defaults = policy.deployment.defaults
    assert policy.workloads["svc_payment"].limits == dataclasses.replace(
        defaults, breakers=dataclasses.replace(defaults.breakers, calls=850)
    )
    assert policy.workloads["svc_user"].limits == defaults
