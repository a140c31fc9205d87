"""Shipments: where a parcel is, and where it may go next. Pure: no I/O, no clock, no proto.

CREATED -> LABELLED -> PICKED_UP -> IN_TRANSIT -> OUT_FOR_DELIVERY -> DELIVERED; each before DELIVERED also -> FAILED;
FAILED -> IN_TRANSIT or RETURNED.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from itertools import pairwise
from uuid import UUID, uuid5

from shop.delivery.v1.delivery_errors import ShipmentStateConflict

_SHIPMENTS = UUID("6f6d5c3e-6d1c-4a34-9e53-1d5c1b3f7a10")


class State(Enum):
    """Where a shipment stands."""

    CREATED = "CREATED"
    LABELLED = "LABELLED"
    PICKED_UP = "PICKED_UP"
    IN_TRANSIT = "IN_TRANSIT"
    OUT_FOR_DELIVERY = "OUT_FOR_DELIVERY"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"
    RETURNED = "RETURNED"


#: The way of a parcel that meets no trouble.
_ROAD = (
    State.CREATED,
    State.LABELLED,
    State.PICKED_UP,
    State.IN_TRANSIT,
    State.OUT_FOR_DELIVERY,
    State.DELIVERED,
)

#: The legal moves. Nothing leads on from a state without any.
MOVES: dict[State, frozenset[State]] = {
    **{here: frozenset({ahead, State.FAILED}) for here, ahead in pairwise(_ROAD)},
    State.FAILED: frozenset({State.IN_TRANSIT, State.RETURNED}),
    State.DELIVERED: frozenset(),
    State.RETURNED: frozenset(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipment:
    """The parcel of one order."""

    id: str
    order_id: str
    user_id: str
    #: google.protobuf bytes of a shop.type.v1.Address: the domain carries it and never looks inside.
    shipping_address: bytes
    slot_id: str
    weight_grams: int
    create_time: datetime
    update_time: datetime
    state: State = State.CREATED
    #: What was said with the last move.
    note: str = ""
    #: The courier's id of it; empty until the courier is known to have it.
    consignment_id: str = ""
    tracking_number: str = ""
    #: The courier's count of its moves, as far as it was heard.
    courier_version: int = 0
    #: Counts the states it went through.
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the courier says of a parcel: all states it has had there, and how many moves that took."""

    consignment_id: str
    tracking_number: str
    version: int
    states: tuple[State, ...]


def shipment_id(order_id: str) -> str:
    """Return the id of an order's shipment: always the same, so that beginning it again finds what was begun."""
    return f"shipment-{uuid5(_SHIPMENTS, order_id).hex}"


def move(shipment: Shipment, to: State, note: str, now: datetime) -> Shipment:
    """Return the shipment in another state, the same one when it is there already; raises ShipmentStateConflict."""
    if to is shipment.state:
        return shipment
    if to not in MOVES[shipment.state]:
        raise ShipmentStateConflict(shipment_id=shipment.id, state=shipment.state.name, wanted=to.name)
    return replace(shipment, state=to, note=note, update_time=now, version=shipment.version + 1)


def hear(shipment: Shipment, report: Report, now: datetime) -> tuple[Shipment, ...]:
    """Return the shipment as it was after each thing the courier says, the present last; nothing for old news.

    News may come out of order, so a report tells all moves: those that were not heard yet are made up for, and what
    lies behind a shipment that was moved on by hand is passed over. A shipment never moves backwards.
    """
    unheard = report.version - shipment.courier_version
    if unheard <= 0 or shipment.consignment_id not in ("", report.consignment_id):
        return ()
    known = replace(
        shipment,
        consignment_id=report.consignment_id,
        tracking_number=report.tracking_number,
        courier_version=report.version,
    )
    stages = [known]
    for state in report.states[-unheard:]:
        for step in road(stages[-1].state, state):
            stages.append(move(stages[-1], step, "", now))
    return tuple(stages)


def refuse(shipment: Shipment, note: str, now: datetime) -> Shipment:
    """Return the shipment that the courier does not take: FAILED, unless somebody has moved it on by hand."""
    return move(shipment, State.FAILED, note, now) if shipment.state is State.CREATED else shipment


def road(here: State, there: State) -> tuple[State, ...]:
    """Return the legal moves that lead forward to a state, none where it is behind or cannot be reached."""
    if not MOVES[here] or here is there:
        return ()
    if there is State.FAILED:
        return (State.FAILED,)
    if there is State.RETURNED:
        return (State.RETURNED,) if here is State.FAILED else (State.FAILED, State.RETURNED)
    # A parcel that failed takes the road up again where it was last in transit.
    first = _ROAD.index(State.IN_TRANSIT) if here is State.FAILED else _ROAD.index(here) + 1
    return _ROAD[first : _ROAD.index(there) + 1]
