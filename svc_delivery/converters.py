"""Converts the domain objects of svc_delivery to messages and events, and requests, orders and consignments back."""

from collections.abc import Sequence
from datetime import datetime, time
from itertools import pairwise

from google.protobuf.message import Message
from google.type.dayofweek_pb2 import DayOfWeek
from google.type.timeofday_pb2 import TimeOfDay

from chassis import Record, timestamp
from chassis.types.money import minor_units, money
from shop.delivery.v1 import delivery_events_pb2 as events
from shop.delivery.v1 import delivery_service_pb2 as pb
from shop.delivery.v1 import shipment_service_pb2 as shipment_pb
from shop.delivery.v1.delivery_errors import CurrencyMismatch
from shop.order.v1.order_service_pb2 import Order
from shop.type.v1.address_pb2 import Address
from svc_delivery import domain_shipment
from svc_delivery.courier import Consignment, CourierAddress, Status
from svc_delivery.domain import Booking, Slot, SlotRule, Tariff, Zone, postal_key
from svc_delivery.domain import State as BookingState
from svc_delivery.domain_shipment import Shipment, State, TrackingUpdate


def zone_from_proto(zone: pb.Zone) -> Zone:
    """Return the zone that a request describes; raises InvalidRequest or CurrencyMismatch over its fees."""
    base, per_kg = zone.base_fee, zone.fee_per_kg
    if base.currency_code != per_kg.currency_code:
        raise CurrencyMismatch(expected=base.currency_code, actual=per_kg.currency_code)
    return Zone(
        id=zone.zone_id,
        name=zone.name,
        country_code=zone.country_code,
        prefixes=tuple(sorted({postal_key(prefix) for prefix in zone.postal_prefixes})),
        tariff=Tariff(
            currency_code=base.currency_code,
            base_fee=minor_units(base, "zone.base_fee"),
            fee_per_kg=minor_units(per_kg, "zone.fee_per_kg"),
            tax_rate_basis_points=zone.tax_rate_basis_points,
        ),
        time_zone=zone.time_zone,
        rules=tuple(_rule_from_proto(rule) for rule in zone.slot_rules),
    )


def zone_to_proto(zone: Zone) -> pb.Zone:
    """Return a zone."""
    tariff = zone.tariff
    return pb.Zone(
        zone_id=zone.id,
        name=zone.name,
        country_code=zone.country_code,
        postal_prefixes=zone.prefixes,
        base_fee=money(tariff.base_fee, tariff.currency_code),
        fee_per_kg=money(tariff.fee_per_kg, tariff.currency_code),
        tax_rate_basis_points=tariff.tax_rate_basis_points,
        time_zone=zone.time_zone,
        slot_rules=[_rule_to_proto(rule) for rule in zone.rules],
    )


def slot_to_proto(slot: Slot) -> pb.Slot:
    """Return a slot with the places left in it."""
    return pb.Slot(
        slot_id=slot.id,
        zone_id=slot.zone_id,
        start_time=timestamp(slot.start_time),
        end_time=timestamp(slot.end_time),
        cutoff_time=timestamp(slot.cutoff_time),
        available=slot.available,
    )


def quote_to_proto(zone_id: str, tariff: Tariff, weight_grams: int) -> pb.QuoteDeliveryResponse:
    """Return the price of a parcel to a zone."""
    return pb.QuoteDeliveryResponse(
        zone_id=zone_id,
        fee=money(tariff.fee(weight_grams), tariff.currency_code),
        tax_rate_basis_points=tariff.tax_rate_basis_points,
    )


def booking_to_proto(booking: Booking) -> pb.SlotBooking:
    """Return a booking of a slot."""
    return pb.SlotBooking(
        order_id=booking.order_id,
        slot_id=booking.slot_id,
        state=pb.SlotBookingState.Value(f"SLOT_BOOKING_STATE_{booking.state.name}"),
        start_time=timestamp(booking.start_time),
        end_time=timestamp(booking.end_time),
        create_time=timestamp(booking.create_time),
        update_time=timestamp(booking.update_time),
    )


def slot_booking_event(booking: Booking) -> Message:
    """Return the event of a booking that has reached its state."""
    kind = events.SlotBooked if booking.state is BookingState.BOOKED else events.SlotReleased
    return kind(order_id=booking.order_id, version=booking.version, slot_id=booking.slot_id)


def shipment_from_order(order: Order, now: datetime) -> Shipment:
    """Return the new shipment of a reserved order."""
    return Shipment(
        id=domain_shipment.shipment_id(order.order_id),
        order_id=order.order_id,
        user_id=order.user_id,
        shipping_address=order.shipping_address.SerializeToString(),
        slot_id=order.slot_id,
        weight_grams=sum(line.weight_grams * line.quantity for line in order.lines),
        create_time=now,
        update_time=now,
    )


def shipment_to_proto(shipment: Shipment, updates: Sequence[Record]) -> shipment_pb.Shipment:
    """Return a shipment with its history."""
    return shipment_pb.Shipment(
        shipment_id=shipment.id,
        order_id=shipment.order_id,
        user_id=shipment.user_id,
        state=_state_to_proto(shipment.state),
        shipping_address=Address.FromString(shipment.shipping_address),
        slot_id=shipment.slot_id,
        weight_grams=shipment.weight_grams,
        tracking_number=shipment.tracking_number,
        updates=[
            shipment_pb.ShipmentUpdate(
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


def state_from_proto(state: shipment_pb.ShipmentState.ValueType) -> str:
    """Return the name of a state, empty for the unspecified one."""
    return shipment_pb.ShipmentState.Name(state).removeprefix("SHIPMENT_STATE_") if state else ""


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
    """Return the courier's record of a parcel; one that it cancels is returned to us."""
    statuses = [movement.status for movement in consignment.movements]
    return TrackingUpdate(
        consignment_id=consignment.id,
        tracking_number=consignment.tracking_number,
        version=consignment.version,
        states=tuple(State.RETURNED if one is Status.CANCELLED else State[one.name] for one in statuses),
    )


def _state_to_proto(state: State) -> shipment_pb.ShipmentState.ValueType:
    return shipment_pb.ShipmentState.Value(f"SHIPMENT_STATE_{state.name}")


def _rule_from_proto(rule: pb.SlotRule) -> SlotRule:
    return SlotRule(
        weekdays=tuple(sorted(rule.weekdays)),
        start=time(rule.start_time.hours, rule.start_time.minutes),
        end=time(rule.end_time.hours, rule.end_time.minutes),
        lead=rule.lead_time.ToTimedelta(),
        capacity=rule.capacity,
    )


def _rule_to_proto(rule: SlotRule) -> pb.SlotRule:
    message = pb.SlotRule(
        weekdays=[DayOfWeek.Name(day) for day in rule.weekdays],
        start_time=TimeOfDay(hours=rule.start.hour, minutes=rule.start.minute),
        end_time=TimeOfDay(hours=rule.end.hour, minutes=rule.end.minute),
        capacity=rule.capacity,
    )
    message.lead_time.FromTimedelta(rule.lead)
    return message
