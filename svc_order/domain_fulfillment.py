"""What becomes of an order and its saga when its parcel moves. Pure: no I/O, no clock, no proto."""

from datetime import datetime
from enum import Enum

from svc_order.domain import Fulfillment, Order, deliver_if_arrived
from svc_order.domain_saga import Saga, Waits


class Parcel(Enum):
    """What a shipment reports; states that mean nothing to an order are left out."""

    UNDER_WAY = "UNDER_WAY"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"
    RETURNED = "RETURNED"
    CANCELLED = "CANCELLED"


def after_parcel(  # noqa: PLR0911  a table
    order: Order, saga: Saga, shipment_id: str, parcel: Parcel, now: datetime, *, waits: Waits
) -> tuple[Order, Saga]:
    """Return an order and its saga after a report about a shipment.

    A shipment that ends before its parcel departs gives the order back: it can be shipped again, or cancelled. One that
    fails before that is cancelled first. Departure resumes the saga, which captures the payment.
    """
    if order.ended_shipments and shipment_id != order.shipment_id:
        return order, saga  # a late report about an earlier shipment
    match parcel:
        case Parcel.FAILED:
            return order, saga.with_shipment_failed(now)
        case Parcel.CANCELLED:
            return _without_shipment(order, saga, now, waits)
        case Parcel.RETURNED if not saga.has_departed:
            return _without_shipment(order, saga, now, waits)
        case Parcel.RETURNED:
            return order.with_fulfillment(Fulfillment.RETURNED, now), saga
        case Parcel.UNDER_WAY:
            return order.with_fulfillment(Fulfillment.SHIPPED, now), saga.departed(now)
        case Parcel.DELIVERED:
            return deliver_if_arrived(order.with_fulfillment(Fulfillment.DELIVERED, now), now), saga.departed(now)


def _without_shipment(order: Order, saga: Saga, now: datetime, waits: Waits) -> tuple[Order, Saga]:
    after = saga.without_shipment(now, waits)
    return (order, saga) if after is saga else (order.without_shipment(now), after)
