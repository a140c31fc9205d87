"""Between the orders' domain and their proto."""

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import Message

from chassis import Record, timestamp
from chassis.types.money import money
from shop.order.v1 import order_events_pb2 as events
from shop.order.v1 import order_service_pb2 as pb
from shop.order.v1 import saga_pb2
from shop.type.v1.address_pb2 import Address
from svc_order.domain import Bill, Line, Order, State


def order_to_proto(order: Order) -> pb.Order:
    """Return an order."""
    bill = order.bill
    return pb.Order(
        order_id=order.id,
        user_id=order.user_id,
        state=pb.OrderState.Value(f"ORDER_STATE_{order.state.name}"),
        state_reason=order.state_reason,
        state_message=order.state_message,
        payment_state=pb.OrderPaymentState.Value(f"ORDER_PAYMENT_STATE_{order.payment_state.name}"),
        fulfillment_state=pb.FulfillmentState.Value(f"FULFILLMENT_STATE_{order.fulfillment_state.name}"),
        lines=lines_to_proto(bill),
        subtotal=money(bill.subtotal, bill.currency),
        shipping_fee=money(bill.shipping_fee, bill.currency),
        tax_total=money(bill.tax_total, bill.currency),
        total=money(bill.total, bill.currency),
        shipping_address=Address.FromString(order.shipping_address),
        slot_id=order.slot_id,
        reservation_id=order.reservation_id,
        payment_id=order.payment_id,
        shipment_id=order.shipment_id,
        etag=str(order.version),
        create_time=timestamp(order.create_time),
        update_time=timestamp(order.update_time),
    )


def lines_to_proto(bill: Bill) -> list[pb.OrderLine]:
    """Return the lines of a bill."""
    return [_line_to_proto(line, bill.currency) for line in bill.lines]


def _line_to_proto(line: Line, currency: str) -> pb.OrderLine:
    return pb.OrderLine(
        sku=line.sku,
        product_id=line.product_id,
        name=line.name,
        quantity=line.quantity,
        unit_price=money(line.unit_price, currency),
        tax_rate_basis_points=line.tax_rate_basis_points,
        tax=money(line.tax, currency),
        total=money(line.total, currency),
        weight_grams=line.weight_grams,
    )


def transition_to_proto(row: Record) -> pb.OrderTransition:
    """Return one move of an order."""
    before = row["from_state"] or "UNSPECIFIED"
    return pb.OrderTransition(
        from_state=pb.OrderState.Value(f"ORDER_STATE_{before}"),
        to_state=pb.OrderState.Value(f"ORDER_STATE_{row['to_state']}"),
        reason=row["reason"],
        message=row["message"],
        create_time=timestamp(row["create_time"]),
    )


def saga_to_proto(row: Record, steps: Sequence[Record] = ()) -> saga_pb2.Saga:
    """Return a saga, with its steps where they are given."""
    return saga_pb2.Saga(
        saga_id=row["saga_id"],
        order_id=row["order_id"],
        state=saga_pb2.SagaState.Value(f"SAGA_STATE_{row['state']}"),
        current_step=row["step"],
        attempts=row["attempts"],
        next_attempt_time=timestamp(row["next_attempt_time"]),
        reason=row["reason"],
        steps=[step_to_proto(step) for step in steps],
        create_time=timestamp(row["create_time"]),
        update_time=timestamp(row["update_time"]),
    )


def step_to_proto(row: Record) -> saga_pb2.SagaStep:
    """Return one step of a saga."""
    return saga_pb2.SagaStep(
        name=row["name"],
        state=saga_pb2.SagaStepState.Value(f"SAGA_STEP_STATE_{row['state']}"),
        attempts=row["attempts"],
        reason=row["reason"],
        start_time=timestamp(row["start_time"]),
        end_time=timestamp(row["end_time"]) if row["end_time"] else None,
    )


def order_created(order: Order) -> events.OrderCreated:
    """Return the event that an order was taken."""
    return events.OrderCreated(
        order_id=order.id,
        version=order.version,
        user_id=order.user_id,
        lines=lines_to_proto(order.bill),
        total=money(order.bill.total, order.bill.currency),
    )


def changes(before: Order, after: Order) -> list[Message]:
    """Return what happened to an order between two of its versions."""
    told: list[Message] = []
    if after.payment_state is not before.payment_state:
        state = pb.OrderPaymentState.Value(f"ORDER_PAYMENT_STATE_{after.payment_state.name}")
        told.append(
            events.OrderPaymentStateChanged(
                order_id=after.id, version=after.version, user_id=after.user_id, payment_state=state
            )
        )
    if (after.fulfillment_state, after.shipment_id) != (before.fulfillment_state, before.shipment_id):
        told.append(
            events.OrderFulfillmentStateChanged(
                order_id=after.id,
                version=after.version,
                user_id=after.user_id,
                fulfillment_state=pb.FulfillmentState.Value(f"FULFILLMENT_STATE_{after.fulfillment_state.name}"),
                shipment_id=after.shipment_id,
            )
        )
    if after.state is not before.state and (moved := _state_changed(after)):
        told.append(moved)
    return told


def _state_changed(order: Order) -> Message | None:  # noqa: PLR0911  a table
    """Return the event of the state that an order has moved to."""
    heading: dict[str, Any] = {"order_id": order.id, "version": order.version, "user_id": order.user_id}
    match order.state:
        case State.CONFIRMED:
            return events.OrderConfirmed(
                **heading,
                reservation_id=order.reservation_id,
                payment_id=order.payment_id,
                slot_id=order.slot_id,
                total=money(order.bill.total, order.bill.currency),
            )
        case State.REJECTED:
            return events.OrderRejected(**heading, reason=order.state_reason)
        case State.CANCELLED:
            return events.OrderCancelled(**heading, reason=order.state_reason)
        case State.SHIPPED:
            return events.OrderShipped(**heading, shipment_id=order.shipment_id)
        case State.DELIVERED:
            return events.OrderDelivered(**heading, shipment_id=order.shipment_id)
        case State.COMPLETED:
            return events.OrderCompleted(**heading)
        case _:
            return None
