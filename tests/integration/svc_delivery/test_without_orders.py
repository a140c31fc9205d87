"""What becomes of the wishes of staff while svc_order cannot be reached."""

import pytest

from chassis import OutcomeUnknown
from chassis.testing import eventually


async def test_a_wish_is_kept_and_granted_once_svc_order_is_back(ask_to_ship, replica, ship_order, orders_app, rows):
    with pytest.raises(OutcomeUnknown):
        await ask_to_ship()
    await ship_order(await rows.fetchval("SELECT order_id FROM dispatch"))

    async def look():
        # The process that cannot reach svc_order goes on trying as well, and each try keeps the other waiting.
        await rows.execute("UPDATE dispatch SET next_attempt_time = now()")
        return await rows.fetchval("SELECT state FROM shipment")

    async with replica(upstreams=f"*={orders_app.address}"):
        await eventually(look, lambda state: state == "LABELLED")
