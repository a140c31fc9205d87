"""Converts cancellations of lines to messages and events, and requests to cancellations."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from chassis import Record, timestamp
from chassis.types.money import money
from shop.order.v1 import cancellation_service_pb2 as pb
from shop.order.v1 import order_events_pb2 as events
from shop.order.v1 import return_service_pb2 as returns_pb
from svc_order.domain import Order
from svc_order.domain_cancellation import CancelledLine, LineCancellation, cancelled_lines


def cancellation_to_proto(
    one: LineCancellation, currency: str, decisions: Sequence[Record] = ()
) -> pb.LineCancellation:
    """Return a cancellation of lines of an order in this currency, with decisions as far as they were read."""
    return pb.LineCancellation(
        cancellation_id=one.id,
        order_id=one.order_id,
        state=pb.CancellationState.Value(f"CANCELLATION_STATE_{one.state.name}"),
        lines=[_line_to_proto(line, currency) for line in one.lines],
        amount=money(one.amount, currency),
        refund=money(one.refund, currency),
        message=one.message,
        problem=one.problem,
        decisions=[
            pb.CancellationDecision(
                decision=returns_pb.RefundDecision.Value(f"REFUND_DECISION_{decision['decision']}"),
                actor=decision["actor"],
                reason=decision["reason"],
                create_time=timestamp(decision["create_time"]),
            )
            for decision in decisions
        ],
        etag=str(one.version),
        create_time=timestamp(one.create_time),
        update_time=timestamp(one.update_time),
    )


def units_from_request(request: pb.CancelOrderLinesRequest) -> Counter[str]:
    """Return the units to cancel by SKU."""
    units: Counter[str] = Counter()
    for line in request.lines:
        units[line.sku] += line.quantity
    return units


def cancellation_from_request(
    request: pb.CancelOrderLinesRequest, before: Order, after: Order, cancellation_id: str, now: datetime
) -> LineCancellation:
    """Return the new cancellation by which an order changes."""
    return LineCancellation(
        id=cancellation_id,
        order_id=before.id,
        lines=tuple(cancelled_lines(before.totals, units_from_request(request))),
        amount=before.totals.total - after.totals.total,
        message=request.message,
        next_attempt_time=now,
        create_time=now,
        update_time=now,
    )


def lines_cancelled_event(one: LineCancellation, order: Order) -> events.OrderLinesCancelled:
    """Return the event of a cancellation, at the version of the order that it has led to."""
    currency = order.totals.currency
    return events.OrderLinesCancelled(
        order_id=order.id,
        version=order.version,
        user_id=order.user_id,
        cancellation_id=one.id,
        lines=[_line_to_proto(line, currency) for line in one.lines],
        amount=money(one.amount, currency),
        total=money(order.totals.total, currency),
    )


def _line_to_proto(line: CancelledLine, currency: str) -> pb.CancelledLine:
    price = money(line.unit_price, currency)
    return pb.CancelledLine(sku=line.sku, quantity=line.quantity, name=line.name, unit_price=price)
