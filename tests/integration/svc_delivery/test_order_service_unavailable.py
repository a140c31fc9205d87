"""Requests for shipments while svc_order is unavailable."""

import pytest

from chassis import OutcomeUnknown
from chassis.testing import eventually


async def test_an_order_is_shipped_when_svc_order_is_available_again(
    request_shipment, replica, insert_order, orders_app, rows
):
    with pytest.raises(OutcomeUnknown):
        await request_shipment()
    await insert_order(await rows.fetchval("SELECT order_id FROM dispatch"))

    async def look():
        # The process that cannot reach svc_order claims the job as well, and its lease keeps the other one waiting.
        await rows.execute("UPDATE dispatch SET next_attempt_time = now()")
        return await rows.fetchval("SELECT state FROM shipment")

    async with replica(upstreams=f"*={orders_app.address}"):
        await eventually(look, lambda state: state == "LABELLED")
