"""The settings of svc_order."""

from dataclasses import dataclass

import chassis


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(chassis.Settings):
    """Settings beyond those of every service."""

    #: Seconds after which another process resumes a step; the process that executes it renews this lease.
    saga_lease_seconds: float = 5.0
    #: Seconds between two searches for sagas that are due.
    saga_poll_seconds: float = 0.5
    #: Resumed sagas that one process executes at the same time.
    saga_concurrency: int = 32
    #: Seconds in which an order must be confirmed, at most the hold of its stock. What has no outcome is undone then.
    confirm_seconds: float = 900.0
    #: Whether every order waits for RetryPayment after a decline; otherwise those whose request says so.
    keep_declined_orders: bool = False
    #: Days in which a confirmed order must be shipped; it is cancelled then.
    ship_days: float = 60.0
    #: Days in which the courier must pick up a parcel; its shipment is cancelled then, and ShipOrder makes another.
    pickup_days: float = 14.0
    #: Days after delivery in which an order can be returned; afterwards it is COMPLETED.
    return_days: float = 14.0
    #: Seconds between two searches for orders to complete.
    complete_seconds: float = 60.0
    #: Seconds between two searches for received returns, and for cancelled lines, whose next step is due.
    return_poll_seconds: float = 1.0
    #: Resumed returns that one process restocks and refunds at the same time, and as many cancellations.
    return_concurrency: int = 8
