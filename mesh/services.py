"""The services of the mesh. Adding one takes its folder, its protos and one line here."""

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
