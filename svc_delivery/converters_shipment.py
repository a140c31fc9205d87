"""Converts shipments to messages and events, and requests and consignments to shipments and tracking updates."""

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise

from chassis import Record, timestamp
from shop.delivery.v1 import delivery_events_pb2 as events
from shop.delivery.v1 import shipment_service_pb2 as pb
from shop.type.v1.address_pb2 import Address
from svc_delivery.courier import Consignment, CourierAddress
from svc_delivery.domain_shipment import Shipment, State, TrackingUpdate


def shipment_from_request(request: pb.CreateShipmentRequest, now: datetime) -> Shipment:
    """Return the new shipment of an order."""
    return Shipment(
        id=request.shipment_id,
        order_id=request.order_id,
        user_id=request.user_id,
        shipping_address=request.shipping_address.SerializeToString(),
        slot_id=request.slot_id,
        weight_grams=request.weight_grams,
        create_time=now,
        update_time=now,
    )


def shipment_to_proto(shipment: Shipment, updates: Sequence[Record]) -> pb.Shipment:
    """Return a shipment with its history."""
    return pb.Shipment(
        shipment_id=shipment.id,
        order_id=shipment.order_id,
        user_id=shipment.user_id,
        state=_state_to_proto(shipment.state),
        shipping_address=Address.FromString(shipment.shipping_address),
        slot_id=shipment.slot_id,
        weight_grams=shipment.weight_grams,
        courier_id=shipment.courier_id,
        tracking_number=shipment.tracking_number,
        updates=[
            pb.ShipmentUpdate(
                state=_state_to_proto(State[row["state"]]),
                note=row["reason"],
                create_time=timestamp(row["create_time"]),
            )
            for row in updates
        ],
        etag=str(shipment.version),
        create_time=timestamp(shipment.create_time),
        update_time=timestamp(shipment.update_time),
    )


def state_from_proto(state: pb.ShipmentState.ValueType) -> str:
    """Return the name of a state, empty for the unspecified one."""
    return pb.ShipmentState.Name(state).removeprefix("SHIPMENT_STATE_") if state else ""


def shipment_created_event(shipment: Shipment) -> events.ShipmentCreated:
    """Return the event of a new shipment."""
    return events.ShipmentCreated(
        shipment_id=shipment.id,
        version=shipment.version,
        order_id=shipment.order_id,
        user_id=shipment.user_id,
        slot_id=shipment.slot_id,
    )


def shipment_status_changed_events(
    before: Shipment, revisions: Sequence[Shipment]
) -> list[events.ShipmentStatusChanged]:
    """Return the events of the transitions that led from revision to revision."""
    return [
        events.ShipmentStatusChanged(
            shipment_id=after.id,
            version=after.version,
            order_id=after.order_id,
            user_id=after.user_id,
            from_state=_state_to_proto(earlier.state),
            to_state=_state_to_proto(after.state),
        )
        for earlier, after in pairwise((before, *revisions))
        if after.version > earlier.version
    ]


def courier_address(address: bytes) -> CourierAddress:
    """Return the address of a shipment as the courier's API takes it."""
    to = Address.FromString(address)
    return CourierAddress(
        recipient=to.recipient,
        line1=to.line1,
        line2=to.line2 or None,
        city=to.city,
        postal_code=to.postal_code,
        country=to.country_code,
    )


def tracking_update_from_consignment(consignment: Consignment) -> TrackingUpdate:
    """Return the courier's record of a parcel."""
    statuses = [movement.status for movement in consignment.movements]
    return TrackingUpdate(
        consignment_id=consignment.id,
        tracking_number=consignment.tracking_number,
        version=consignment.version,
        states=tuple(State[one.name] for one in statuses),
    )


def _state_to_proto(state: State) -> pb.ShipmentState.ValueType:
    return pb.ShipmentState.Value(f"SHIPMENT_STATE_{state.name}")
