"""The services of the mesh. Adding one takes its folder, its protos and one line here."""

from collections.abc import Mapping

from shop.contract import RPCS

SERVICES: tuple[str, ...] = (
    "svc_user",
    "svc_catalog",
    "svc_inventory",
    "svc_order",
    "svc_payment",
    "svc_delivery",
)


def workload(grpc_service: str) -> str:
    """The service that serves this gRPC service: svc_order for shop.order.v1.OrderService."""
    return f"svc_{grpc_service.split('.')[1]}"


def upstreams(addresses: Mapping[str, str]) -> dict[str, str]:
    """Where each gRPC service is called, when these are the addresses of the services that serve them."""
    known = {rpc.service: workload(rpc.service) for rpc in RPCS.values()}
    return {service: addresses[name] for service, name in known.items() if name in addresses}
