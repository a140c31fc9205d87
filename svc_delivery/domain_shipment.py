"""Shipments: where a parcel is, and what its next states may be. Pure: no I/O, no clock, no proto."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from itertools import pairwise

from chassis.domain.transitions import Transitions
from shop.delivery.v1.delivery_errors import ShipmentStateConflict


class State(Enum):
    """The states of a shipment."""

    CREATED = "CREATED"
    LABELLED = "LABELLED"
    PICKED_UP = "PICKED_UP"
    IN_TRANSIT = "IN_TRANSIT"
    OUT_FOR_DELIVERY = "OUT_FOR_DELIVERY"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"
    RETURNED = "RETURNED"
    CANCELLED = "CANCELLED"


#: The path of a parcel that never fails.
_REGULAR_PATH = (
    State.CREATED,
    State.LABELLED,
    State.PICKED_UP,
    State.IN_TRANSIT,
    State.OUT_FOR_DELIVERY,
    State.DELIVERED,
)
_REGULAR = Transitions.between({start: (end,) for start, end in pairwise(_REGULAR_PATH)})

TRANSITIONS = Transitions.between(
    {start: (end, State.FAILED) for start, end in pairwise(_REGULAR_PATH)}
    | {
        State.CREATED: (State.LABELLED, State.FAILED, State.CANCELLED),
        State.LABELLED: (State.PICKED_UP, State.FAILED, State.CANCELLED),
        # CANCELLED only of a parcel that was never picked up.
        State.FAILED: (State.IN_TRANSIT, State.RETURNED, State.CANCELLED),
    }
)
_WITH_THE_COURIER = frozenset(_REGULAR_PATH[2:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipment:
    """The parcel of one order."""

    id: str
    order_id: str
    user_id: str
    #: google.protobuf bytes of a shop.type.v1.Address: the domain carries it and never parses it.
    shipping_address: bytes
    slot_id: str
    weight_grams: int
    create_time: datetime
    update_time: datetime
    state: State = State.CREATED
    #: Why the shipment is in its state, for the customer; may be empty.
    reason: str = ""
    #: The courier's id of the parcel; empty until the courier is known to have it.
    consignment_id: str = ""
    tracking_number: str = ""
    #: The version of the last tracking update that was applied.
    courier_version: int = 0
    #: Whether the courier has ever had the parcel: afterwards it cannot be cancelled.
    picked_up: bool = False
    #: Who requested the cancellation; empty when no one did.
    cancel_actor: str = ""
    cancel_reason: str = ""
    #: The user who delivers it; empty while it is assigned to none.
    courier_id: str = ""
    #: The number of states that the shipment has been in.
    version: int = 1

    @property
    def is_cancelling(self) -> bool:
        """Return whether the courier still has to confirm a cancellation."""
        return bool(self.cancel_actor) and not self.picked_up and not TRANSITIONS.is_final(self.state)

    def transition_to(self, to: State, reason: str, now: datetime) -> "Shipment":
        """Return the shipment in the state `to`, itself if it is there already; raises ShipmentStateConflict."""
        if to is self.state:
            return self
        if not TRANSITIONS.allows(self.state, to) or (to is State.CANCELLED and self.picked_up):
            raise ShipmentStateConflict(shipment_id=self.id, state=self.state.name, wanted=to.name)
        picked_up = self.picked_up or to in _WITH_THE_COURIER
        return replace(self, state=to, reason=reason, picked_up=picked_up, update_time=now, version=self.version + 1)

    def with_cancellation_requested(self, actor: str, reason: str) -> "Shipment":
        """Return the shipment that the courier is to cancel, itself when that was requested or it has ended.

        Raises ShipmentStateConflict once the parcel was picked up.
        """
        if self.state in (State.CANCELLED, State.RETURNED):
            return self
        if self.picked_up:
            raise ShipmentStateConflict(shipment_id=self.id, state=self.state.name, wanted=State.CANCELLED.name)
        return self if self.cancel_actor else replace(self, cancel_actor=actor, cancel_reason=reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingUpdate:
    """The courier's record of a parcel: all its states there, oldest first, and their number as the version."""

    consignment_id: str
    tracking_number: str
    version: int
    states: tuple[State, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchJob:
    """One claimed attempt at submitting an order's shipment to the courier, or at cancelling it there."""

    order_id: str
    #: The number of this attempt, counted from 1. Each claim has another one, so it is the fencing token too.
    attempt: int
    traceparent: str
    shipment: Shipment

    @property
    def id(self) -> str:
        """Return the id of the job: an order has one."""
        return self.order_id


def apply_tracking_update(shipment: Shipment, update: TrackingUpdate, now: datetime) -> tuple[Shipment, ...]:
    """Return each revision of the shipment that the update leads to, the latest last; none for an outdated update.

    Updates may arrive out of order, so each holds the parcel's whole history: states of lost updates are made up for,
    and states behind a shipment that staff has moved ahead are skipped. A shipment never moves backwards.
    """
    unapplied = update.version - shipment.courier_version
    if unapplied <= 0 or shipment.consignment_id not in ("", update.consignment_id):
        return ()
    known = replace(
        shipment,
        consignment_id=update.consignment_id,
        tracking_number=update.tracking_number,
        courier_version=update.version,
    )
    revisions = [known]
    for state in update.states[-unapplied:]:
        if state is State.CANCELLED and revisions[-1].picked_up:
            continue  # staff has handed it over nevertheless
        reason = shipment.cancel_reason if state is State.CANCELLED else ""
        for step in path_between(revisions[-1].state, state):
            revisions.append(revisions[-1].transition_to(step, reason, now))
    return tuple(revisions)


def cancel(shipment: Shipment, update: TrackingUpdate | None, now: datetime) -> tuple[Shipment, ...]:
    """Return each revision of a shipment after the courier ended its parcel, or turned out not to have it (None)."""
    revisions = (apply_tracking_update(shipment, update, now) if update else ()) or (shipment,)
    if not revisions[-1].is_cancelling:
        return revisions
    return (*revisions, revisions[-1].transition_to(State.CANCELLED, shipment.cancel_reason, now))


def reject(shipment: Shipment, reason: str, now: datetime) -> Shipment:
    """Return the shipment that the courier rejects: FAILED, unless staff has moved it ahead."""
    return shipment.transition_to(State.FAILED, reason, now) if shipment.state is State.CREATED else shipment


def path_between(start: State, end: State) -> tuple[State, ...]:
    """Return the transitions that lead ahead from `start` to `end`, none where it is behind or cannot be reached.

    A path passes FAILED only where it must: no shortcut of a parcel that has not failed leads through it.
    """
    if end is State.CANCELLED:
        return (end,) if TRANSITIONS.allows(start, end) else ()
    through_failed = start is State.FAILED or end in (State.FAILED, State.RETURNED)
    return (TRANSITIONS if through_failed else _REGULAR).path(start, end) or ()
