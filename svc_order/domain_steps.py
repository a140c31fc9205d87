"""The steps of a saga and their results. Pure: no I/O, no clock, no proto."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum


class Step(Enum):
    """The steps of a saga, in order."""

    RESERVE_STOCK = "reserve_stock"
    BOOK_SLOT = "book_slot"
    AUTHORIZE_PAYMENT = "authorize_payment"
    #: Waits for the customer or the provider; skipped when the authorization has an outcome at once.
    AWAIT_PAYMENT = "await_payment"
    #: Waits for RetryPayment; only after a decline, and only for orders that asked for it.
    AWAIT_PAYMENT_METHOD = "await_payment_method"
    CONFIRM_RESERVATION = "confirm_reservation"
    #: Waits for ShipOrder.
    AWAIT_SHIPMENT = "await_shipment"
    CREATE_SHIPMENT = "create_shipment"
    #: Waits for the courier's events, in time.
    AWAIT_PICKUP = "await_pickup"
    CAPTURE_PAYMENT = "capture_payment"
    FULFILL_RESERVATION = "fulfill_reservation"

    @property
    def position(self) -> int:
        """Return its place in the order of steps."""
        return _POSITIONS[self]

    @property
    def is_past_pivot(self) -> bool:
        """Return whether the saga goes forward from here, or is parked, and compensates only when an operator says."""
        return self.position >= Step.CREATE_SHIPMENT.position

    @property
    def is_after_departure(self) -> bool:
        """Return whether the parcel has left, after which nothing compensates."""
        return self.position >= Step.CAPTURE_PAYMENT.position


STEPS = tuple(Step)
_POSITIONS = {step: position for position, step in enumerate(STEPS)}
#: The steps that are undone. Releasing the reservation undoes its confirmation too.
UNDOABLE = frozenset({Step.RESERVE_STOCK, Step.BOOK_SLOT, Step.AUTHORIZE_PAYMENT, Step.CREATE_SHIPMENT})
#: The steps that a saga passes only when the payment makes it wait.
SKIPPED = frozenset({Step.AWAIT_PAYMENT, Step.AWAIT_PAYMENT_METHOD})


@dataclass(frozen=True, slots=True)
class Done:
    """The step took effect, now or before."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The step did not take effect, and never will."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The step may have taken effect: it is repeated with the same key until its outcome is known."""

    reason: str
    #: The pause that the participant demands before the next attempt.
    retry_delay: timedelta = timedelta()


@dataclass(frozen=True, slots=True)
class Pending:
    """The participant has not finished the step yet: it is called again, until `until` if it named a time."""

    until: datetime | None = None


StepResult = Done | Refused | Unknown | Pending
