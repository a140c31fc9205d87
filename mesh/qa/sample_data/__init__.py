"""A shop to play with: products, stock, delivery zones and staff, the same ones every time."""

#: The services that keep it.
NEEDED = frozenset({"svc_user", "svc_catalog", "svc_inventory", "svc_delivery"})
