"""Reads the history of an order: everything that happened to it, its payment, its lines and its parcel."""

from chassis import Transaction
from shop.order.v1 import order_service_pb2 as pb
from svc_order import (
    converters,
    converters_cancellations,
    converters_returns,
    store_cancellations,
    store_operators,
    store_returns,
)
from svc_order.domain import Order
from svc_order.domain_saga import saga_id


async def read_timeline(tx: Transaction, order: Order) -> pb.OrderTimeline:
    """Return the timeline of an order without its payment, which svc_payment knows."""
    currency = order.totals.currency
    history = await store_operators.list_history(tx, order.id)
    steps = await store_operators.list_steps(tx, saga_id(order.id))
    returns = await store_returns.read_returns_of(tx, order.id)
    cancellations = await store_cancellations.read_cancellations_of(tx, order.id)
    return pb.OrderTimeline(
        order_id=order.id,
        transitions=map(converters.transition_to_proto, history),
        steps=map(converters.step_to_proto, steps),
        returns=[converters_returns.return_to_proto(one, currency) for one in returns],
        cancellations=[converters_cancellations.cancellation_to_proto(one, currency) for one in cancellations],
    )
