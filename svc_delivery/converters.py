"""Converts zones, slots and bookings to messages and events, and requests back."""

from datetime import time

from google.protobuf.message import Message
from google.type.dayofweek_pb2 import DayOfWeek
from google.type.timeofday_pb2 import TimeOfDay

from chassis import timestamp
from chassis.types.money import minor_units, money
from chassis.types.times import to_datetime
from shop.delivery.v1 import delivery_events_pb2 as events
from shop.delivery.v1 import delivery_service_pb2 as pb
from shop.delivery.v1.delivery_errors import CurrencyMismatch
from svc_delivery.domain import Booking, Slot, SlotTimes, State
from svc_delivery.domain_zone import SlotRule, Tariff, Zone, normalized_postal_code


def zone_from_proto(zone: pb.Zone) -> Zone:
    """Return the zone that a request describes; raises InvalidRequest or CurrencyMismatch for its fees."""
    base, per_kg = zone.base_fee, zone.fee_per_kg
    if base.currency_code != per_kg.currency_code:
        raise CurrencyMismatch(expected=base.currency_code, actual=per_kg.currency_code)
    return Zone(
        id=zone.zone_id,
        name=zone.name,
        country_code=zone.country_code,
        prefixes=tuple(sorted({normalized_postal_code(prefix) for prefix in zone.postal_prefixes})),
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


def slot_times_from_proto(request: pb.CreateSlotRequest) -> SlotTimes:
    """Return the times of a new slot, by default bookable until it starts; raises InvalidRequest."""
    start = to_datetime(request.start_time, "start_time")
    return SlotTimes(
        start_time=start,
        end_time=to_datetime(request.end_time, "end_time"),
        cutoff_time=to_datetime(request.cutoff_time, "cutoff_time") if request.HasField("cutoff_time") else start,
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
    kind = events.SlotBooked if booking.state is State.BOOKED else events.SlotReleased
    return kind(order_id=booking.order_id, version=booking.version, slot_id=booking.slot_id)


def _rule_from_proto(rule: pb.SlotRule) -> SlotRule:
    return SlotRule(
        weekdays=tuple(sorted(rule.weekdays)),
        start_time=time(rule.start_time.hours, rule.start_time.minutes),
        end_time=time(rule.end_time.hours, rule.end_time.minutes),
        lead_time=rule.lead_time.ToTimedelta(),
        capacity=rule.capacity,
    )


def _rule_to_proto(rule: SlotRule) -> pb.SlotRule:
    message = pb.SlotRule(
        weekdays=[DayOfWeek.Name(day) for day in rule.weekdays],
        start_time=TimeOfDay(hours=rule.start_time.hour, minutes=rule.start_time.minute),
        end_time=TimeOfDay(hours=rule.end_time.hour, minutes=rule.end_time.minute),
        capacity=rule.capacity,
    )
    message.lead_time.FromTimedelta(rule.lead_time)
    return message
