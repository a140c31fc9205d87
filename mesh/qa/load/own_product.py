"""A product that a load makes for itself: few units of it, at a price that the load changes."""

import uuid
from typing import Any

from mesh.qa.shop_client import ShopApiClient, new_key

#: Units by location: orders take from both, and soon all.
_STOCK = {"bangkok": 3, "phuket": 2}


async def make_product(staff: ShopApiClient) -> dict[str, Any]:
    """Create a product with one variant and a little stock. Raises RequestRejected or OutcomeUnknown."""
    sku = f"LOAD-{uuid.uuid4().hex[:12].upper()}"
    variant = {
        "sku": sku,
        "price": {"currencyCode": "THB", "units": 100},
        "taxRateBasisPoints": 700,
        "weightGrams": 500,
    }
    body = {"name": f"Sample of a load {sku}", "variants": [variant]}
    product = await staff.post(f"/v1/products?requestId={new_key()}", body)
    for location, units in _STOCK.items():
        await staff.put(f"/v1/stock/{sku}/locations/{location}", {"onHand": units, "requestId": new_key()})
    return product
