"""What svc_order can be told from outside."""

from dataclasses import dataclass

import chassis


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(chassis.Settings):
    """The orders' own settings."""

    #: Seconds after which a step that was begun is taken for abandoned by its process, which renews this meanwhile.
    saga_lease_seconds: float = 5.0
    #: Seconds between two looks for sagas that are due.
    saga_poll_seconds: float = 0.5
    #: Sagas that one process drives at the same time.
    sagas_at_once: int = 32
    #: Days after delivery in which an order can be given back; it is COMPLETED afterwards.
    return_days: float = 14.0
    #: Seconds between two looks for orders to complete.
    complete_seconds: float = 60.0
