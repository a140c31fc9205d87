"""Reads and operations of the shop that several tests of svc_order need."""

import asyncio
from contextlib import asynccontextmanager

from chassis.testing import eventually
from shop.delivery.v1 import shipment_service_pb2 as shipment_pb
from shop.inventory.v1 import inventory_service_pb2 as inventory_pb
from shop.order.v1 import order_service_pb2 as pb
from shop.order.v1 import saga_service_pb2 as sagas_pb
from shop.payment.v1 import payment_service_pb2 as payment_pb


async def available(shop, sku):
    return (await shop.inventory.GetStock(inventory_pb.GetStockRequest(sku=sku))).available


async def get(shop, order_id):
    return await shop.orders.GetOrder(pb.GetOrderRequest(order_id=order_id))


async def reached(shop, order_id, state):
    """Return an order once it is in a state."""
    return await eventually(lambda: get(shop, order_id), lambda one: one.state == state)


async def payment_of(shop, order):
    return await shop.payments.GetPayment(payment_pb.GetPaymentRequest(payment_id=order.payment_id))


async def authorization_applied(rows):
    """Wait until svc_order has applied the event of the authorization, which reopens a compensated saga."""
    await events_applied(rows, 1)


async def events_applied(rows, count):
    """Wait until svc_order has applied so many events, each of which may change a saga."""
    await eventually(lambda: rows.fetchval("SELECT count(*) FROM inbox"), lambda applied: applied >= count)


async def timeline(shop, order_id):
    """Return how the steps of an order's saga stand."""
    published = await shop.orders.GetOrderTimeline(pb.GetOrderTimelineRequest(order_id=order_id))
    return {step.name: step.state for step in published.steps}


async def states_of(shop, order_id):
    """Return the states that an order went through."""
    published = await shop.orders.GetOrderTimeline(pb.GetOrderTimelineRequest(order_id=order_id))
    return [pb.OrderState.Name(one.to_state).removeprefix("ORDER_STATE_") for one in published.transitions]


def saga_id(order_id):
    return order_id.replace("order-", "saga-")


async def saga_of(shop, order_id):
    with shop.staff():
        return await shop.sagas.GetSaga(sagas_pb.GetSagaRequest(saga_id=saga_id(order_id)))


async def ship(shop, order_id, request_id=None, orders=None):
    """Ship an order as staff does."""
    request = pb.ShipOrderRequest(order_id=order_id, request_id=request_id or f"ship-{order_id}")
    with shop.staff():
        return await (orders or shop.orders).ShipOrder(request)


async def move(shop, shipment, *states):
    with shop.staff():
        for state in states:
            await shop.shipments.UpdateShipmentStatus(
                shipment_pb.UpdateShipmentStatusRequest(
                    shipment_id=shipment.shipment_id, state=state, request_id=f"move-{state}-{shipment.shipment_id}"
                )
            )


@asynccontextmanager
async def paying(shop, rows, request, orders=None):
    """Buy something that takes a while to pay; lends the order's id while that step is under way, and the call."""
    placing = asyncio.create_task((orders or shop.orders).CreateOrder(request))
    try:
        query = (
            "SELECT order_id FROM saga WHERE step = 'authorize_payment' AND state = 'RUNNING' ORDER BY create_time DESC"
        )
        yield await eventually(lambda: rows.fetchval(query), bool), placing
    finally:
        placing.cancel()
        await asyncio.wait([placing])


async def paid_slip(shop, look_at_provider, request):
    """Return the order of a slip that is paid, which is CONFIRMED."""
    order = await shop.orders.CreateOrder(request)

    async def paid():
        await look_at_provider()
        return await get(shop, order.order_id)

    await eventually(paid, lambda one: one.payment_state == pb.ORDER_PAYMENT_STATE_PAID)
    return await reached(shop, order.order_id, pb.ORDER_STATE_CONFIRMED)
