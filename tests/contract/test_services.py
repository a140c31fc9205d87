"""The table of gRPC services is whole: each has a workload here, and is found by its stub and its servicer."""

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
