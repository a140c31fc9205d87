"""Sample data: products, stock, delivery zones and staff, the same at every load."""

#: The services that store it.
NEEDED = frozenset({"svc_user", "svc_catalog", "svc_inventory", "svc_delivery"})
