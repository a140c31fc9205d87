"""Converts the domain objects and rows of svc_order to messages and events, and messages to domain objects."""

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import Message

from chassis import Record, timestamp
from chassis.types.money import minor_units, money
from shop.catalog.v1 import catalog_service_pb2 as catalog_pb
from shop.delivery.v1 import shipment_service_pb2 as shipment_pb
from shop.order.v1 import order_events_pb2 as events
from shop.order.v1 import order_service_pb2 as pb
from shop.order.v1 import saga_pb2
from shop.type.v1.address_pb2 import Address
from svc_order.domain import Line, Order, OrderTotals, Payment, State
from svc_order.domain_pricing import CatalogPrice, weight_grams
from svc_order.domain_settlement import Settlement


def order_to_proto(order: Order) -> pb.Order:
    """Return an order."""
    totals = order.totals
    return pb.Order(
        order_id=order.id,
        user_id=order.user_id,
        state=pb.OrderState.Value(f"ORDER_STATE_{order.state.name}"),
        state_reason=order.state_reason,
        state_message=order.state_message,
        payment_state=pb.OrderPaymentState.Value(f"ORDER_PAYMENT_STATE_{order.payment_state.name}"),
        fulfillment_state=pb.FulfillmentState.Value(f"FULFILLMENT_STATE_{order.fulfillment_state.name}"),
        lines=lines_to_proto(totals),
        subtotal=money(totals.subtotal, totals.currency),
        shipping_fee=money(totals.shipping_fee, totals.currency),
        tax_total=money(totals.tax_total, totals.currency),
        total=money(totals.total, totals.currency),
        shipping_address=Address.FromString(order.shipping_address),
        slot_id=order.slot_id,
        reservation_id=order.reservation_id,
        payment_id=order.payment_id,
        shipment_id=order.shipment_id,
        etag=str(order.version),
        create_time=timestamp(order.create_time),
        update_time=timestamp(order.update_time),
        payment_due_time=timestamp(order.payment_due_time) if order.payment_due_time else None,
    )


def lines_to_proto(totals: OrderTotals) -> list[pb.OrderLine]:
    """Return the lines of an order or of a preview."""
    return [_line_to_proto(line, totals.currency) for line in totals.lines]


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


def shipment_to_proto(order: Order) -> shipment_pb.Shipment:
    """Return the shipment of an order as far as svc_order knows it."""
    return shipment_pb.Shipment(
        shipment_id=order.shipment_id,
        order_id=order.id,
        user_id=order.user_id,
        state=shipment_pb.SHIPMENT_STATE_CREATED,
        shipping_address=Address.FromString(order.shipping_address),
        slot_id=order.slot_id,
        weight_grams=weight_grams(order.totals.lines),
        create_time=timestamp(order.update_time),
        update_time=timestamp(order.update_time),
    )


def catalog_price_from_proto(variant: catalog_pb.VariantSnapshot) -> CatalogPrice:
    """Return what the catalog sells under a SKU."""
    return CatalogPrice(
        sku=variant.sku,
        product_id=variant.product_id,
        name=variant.name,
        unit_price=minor_units(variant.price, "price"),
        currency=variant.price.currency_code,
        tax_rate_basis_points=variant.tax_rate_basis_points,
        weight_grams=variant.weight_grams,
    )


def transition_to_proto(row: Record) -> pb.OrderTransition:
    """Return one transition of an order."""
    before = row["from_state"] or "UNSPECIFIED"
    return pb.OrderTransition(
        from_state=pb.OrderState.Value(f"ORDER_STATE_{before}"),
        to_state=pb.OrderState.Value(f"ORDER_STATE_{row['to_state']}"),
        reason=row["reason"],
        message=row["message"],
        create_time=timestamp(row["create_time"]),
    )


def state_from_proto(state: pb.OrderState.ValueType) -> str:
    """Return the name of a state; empty when it is unspecified."""
    return pb.OrderState.Name(state).removeprefix("ORDER_STATE_") if state else ""


def saga_state_from_proto(state: saga_pb2.SagaState.ValueType) -> str:
    """Return the name of a saga's state; empty when it is unspecified."""
    return saga_pb2.SagaState.Name(state).removeprefix("SAGA_STATE_") if state else ""


def settlement_from_proto(action: saga_pb2.SagaAction.ValueType) -> Settlement:
    """Return what an operator says became of a step."""
    return Settlement[saga_pb2.SagaAction.Name(action).removeprefix("SAGA_ACTION_")]


def saga_to_proto(row: Record, steps: Sequence[Record] = (), decisions: Sequence[Record] = ()) -> saga_pb2.Saga:
    """Return a saga, with its steps and the decisions of operators as far as they were read."""
    return saga_pb2.Saga(
        saga_id=row["saga_id"],
        order_id=row["order_id"],
        state=saga_pb2.SagaState.Value(f"SAGA_STATE_{row['state']}"),
        current_step=row["step"],
        attempts=row["attempts"],
        next_attempt_time=timestamp(row["next_attempt_time"]),
        reason=row["reason"],
        steps=[step_to_proto(step) for step in steps],
        deadline=timestamp(row["deadline"]),
        decisions=[
            saga_pb2.SagaDecision(
                action=saga_pb2.SagaAction.Value(f"SAGA_ACTION_{decision['action']}"),
                actor=decision["actor"],
                reason=decision["reason"],
                step=decision["step"],
                create_time=timestamp(decision["create_time"]),
            )
            for decision in decisions
        ],
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


def order_created_event(order: Order) -> events.OrderCreated:
    """Return the event of a new order."""
    return events.OrderCreated(
        order_id=order.id,
        version=order.version,
        user_id=order.user_id,
        lines=lines_to_proto(order.totals),
        total=money(order.totals.total, order.totals.currency),
    )


def order_changed_events(before: Order, after: Order) -> list[Message]:
    """Return the events of a change of an order; none when nothing changed."""
    changed: list[Message] = []
    if _payment_facts(after) != _payment_facts(before):
        state = pb.OrderPaymentState.Value(f"ORDER_PAYMENT_STATE_{after.payment_state.name}")
        changed.append(events.OrderPaymentStateChanged(**_heading(after), payment_state=state))
    if (after.fulfillment_state, after.shipment_id) != (before.fulfillment_state, before.shipment_id):
        fulfillment_state = pb.FulfillmentState.Value(f"FULFILLMENT_STATE_{after.fulfillment_state.name}")
        changed.append(
            events.OrderFulfillmentStateChanged(
                **_heading(after), fulfillment_state=fulfillment_state, shipment_id=after.shipment_id
            )
        )
    reopened = before.state is State.RETURN_REQUESTED and after.state is State.DELIVERED  # it arrived before
    if after.state is not before.state and not reopened and (event := _state_changed_event(after)):
        changed.append(event)
    return changed


def _payment_facts(order: Order) -> tuple[object, ...]:
    reason = order.state_reason if order.payment_state is Payment.PENDING else ""
    return order.payment_state, order.payment_id, order.payment_due_time, reason


def _state_changed_event(order: Order) -> Message | None:  # noqa: PLR0911  a table
    """Return the event of the state that an order has reached."""
    heading = _heading(order)
    match order.state:
        case State.CONFIRMED:
            return events.OrderConfirmed(
                **heading,
                reservation_id=order.reservation_id,
                payment_id=order.payment_id,
                slot_id=order.slot_id,
                total=money(order.totals.total, order.totals.currency),
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
        case State.RETURNED:
            return events.OrderReturned(**heading)
        case _:
            return None


def _heading(order: Order) -> dict[str, Any]:
    return {"order_id": order.id, "version": order.version, "user_id": order.user_id}
