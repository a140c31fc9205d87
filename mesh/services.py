"""The services of the mesh: the workloads of the contract whose folders are here. No list names them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from shop import services

_FOLDERS = Path(__file__).parents[1]

#: By name, in alphabetical order.
SERVICES: Final[tuple[str, ...]] = tuple(
    sorted({service.workload for service in services.SERVICES.values() if (_FOLDERS / service.workload).is_dir()})
)


def workload(grpc_service: str) -> str:
    """Return the service that serves the gRPC service: svc_order for shop.order.v1.OrderService."""
    return services.SERVICES[grpc_service].workload


def upstreams(addresses: Mapping[str, str]) -> dict[str, str]:
    """Return where each gRPC service is called, given the addresses of the services that serve them."""
    return {
        name: addresses[service.workload]
        for name, service in services.SERVICES.items()
        if service.workload in addresses
    }
