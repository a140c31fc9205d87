"""Converts returns to messages and events, and requests to returns."""

from collections.abc import Sequence
from datetime import datetime

from chassis import timestamp
from chassis.types.money import money
from shop.order.v1 import order_events_pb2 as events
from shop.order.v1 import return_service_pb2 as pb
from svc_order.domain import Order
from svc_order.domain_returns import Return, ReturnLine, ReturnState
from svc_order.domain_settlement import RefundDecision


def return_to_proto(one: Return, currency: str) -> pb.Return:
    """Return a return of an order in this currency."""
    return pb.Return(
        return_id=one.id,
        order_id=one.order_id,
        user_id=one.user_id,
        state=_state_to_proto(one.state),
        reason=pb.ReturnReason.Value(f"RETURN_REASON_{one.reason}"),
        message=one.message,
        lines=[
            pb.ReturnLine(
                sku=line.sku,
                quantity=line.quantity,
                restocked=line.restocked,
                written_off=line.written_off,
                location_id=line.location_id,
            )
            for line in one.lines
        ],
        refund=money(one.refund, currency),
        transitions=[
            pb.ReturnTransition(state=_state_to_proto(state), message=message, create_time=timestamp(time))
            for state, message, time in one.history
        ],
        problem=one.problem,
        refunded_outside=one.refunded_outside,
        etag=str(one.version),
        create_time=timestamp(one.create_time),
        update_time=timestamp(one.update_time),
    )


def return_from_request(request: pb.CreateReturnRequest, order: Order, return_id: str, now: datetime) -> Return:
    """Return the new return of an order."""
    quantities: dict[str, int] = {}
    for line in request.lines:
        quantities[line.sku] = quantities.get(line.sku, 0) + line.quantity
    return Return(
        id=return_id,
        order_id=order.id,
        user_id=order.user_id,
        lines=tuple(ReturnLine(sku=sku, quantity=quantity) for sku, quantity in quantities.items()),
        reason=pb.ReturnReason.Name(request.reason).removeprefix("RETURN_REASON_"),
        message=request.message,
        next_attempt_time=now,
        create_time=now,
        update_time=now,
    )


def received_lines(lines: Sequence[pb.ReceivedLine]) -> dict[str, ReturnLine]:
    """Return what was received of each SKU."""
    return {
        line.sku: ReturnLine(
            sku=line.sku,
            quantity=line.restocked + line.written_off,
            restocked=line.restocked,
            written_off=line.written_off,
            location_id=line.location_id if line.restocked else "",
        )
        for line in lines
    }


def return_changed_event(one: Return, order: Order) -> events.OrderReturnChanged:
    """Return the event of a return that was created or has changed its state, at a version of its order."""
    return events.OrderReturnChanged(
        order_id=order.id,
        version=order.version,
        user_id=order.user_id,
        return_id=one.id,
        return_state=_state_to_proto(one.state),
    )


def decision_from_proto(decision: pb.RefundDecision.ValueType) -> RefundDecision:
    """Return what an operator decides about a refund."""
    return RefundDecision[pb.RefundDecision.Name(decision).removeprefix("REFUND_DECISION_")]


def state_from_proto(state: pb.ReturnState.ValueType) -> str:
    """Return the name of a state; empty when it is unspecified."""
    return pb.ReturnState.Name(state).removeprefix("RETURN_STATE_") if state else ""


def _state_to_proto(state: ReturnState) -> pb.ReturnState.ValueType:
    return pb.ReturnState.Value(f"RETURN_STATE_{state.name}")
