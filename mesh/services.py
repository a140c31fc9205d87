"""The services of the mesh. Adding one takes its folder, its protos and one line here."""

SERVICES: tuple[str, ...] = (
    "svc_user",
    "svc_catalog",
    "svc_inventory",
    "svc_order",
    "svc_payment",
    "svc_delivery",
)
