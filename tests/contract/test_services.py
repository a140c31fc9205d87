"""The table of gRPC services is whole: each has a workload here, and is found by its stub and its servicer."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from mesh.services import SERVICES as WORKLOADS
from shop.contract import RPCS
from shop.order.v1.order_service_pb2_grpc import OrderServiceServicer
from shop.services import SERVICES, Service, service_of_servicer, service_of_stub
from shop.user.v1.user_service_pb2_grpc import UserServiceServicer

ROOT = Path(__file__).parents[2]

every_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)


def test_every_service_of_the_contract_is_in_the_table() -> None:
    assert set(SERVICES) == {rpc.service for rpc in RPCS.values()}


def test_every_folder_of_a_service_serves_a_part_of_the_contract() -> None:
    assert {path.parent.name for path in ROOT.glob("svc_*/__init__.py")} == set(WORKLOADS)
    assert {service.workload for service in SERVICES.values()} == set(WORKLOADS)


@every_service
def test_a_stub_class_names_its_service(service: Service) -> None:
    assert service_of_stub(service.stub_class) is service


@every_service
def test_a_servicer_names_its_service_through_its_generated_base(service: Service) -> None:
    inherited = type("Between", (service.servicer_class,), {})

    assert service_of_servicer(type("Ours", (inherited,), {})()) is service


@pytest.mark.parametrize("kind", [object, type("Two", (OrderServiceServicer, UserServiceServicer), {})])
def test_a_class_that_is_not_of_exactly_one_service_is_an_error(kind: type) -> None:
    with pytest.raises(LookupError, match="belongs to"):
        service_of_servicer(kind())
    with pytest.raises(LookupError, match="no service of the contract"):
        service_of_stub(kind)


def called_by(workload: str) -> set[str]:
    """Return the workloads whose RPCs a workload may call."""
    rpcs = [rpc for rpc in RPCS.values() if rpc.admits(workload)]
    return {SERVICES[rpc.service].workload for rpc in rpcs} - {workload}


def test_no_services_call_each_other_in_a_circle() -> None:
    TopologicalSorter({workload: called_by(workload) for workload in WORKLOADS}).prepare()  # raises CycleError


@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_service_imports_no_contract_but_its_own_and_those_of_services_that_it_may_call(workload: str) -> None:
    imported = set()
    for path in (ROOT / workload).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (found := re.match(r"shop\.(\w+)\.v1", node.module or "")):
                imported.add(f"svc_{found[1]}")
    assert imported & set(WORKLOADS) <= {workload} | called_by(workload)
