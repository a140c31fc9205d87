"""The settings of svc_inventory."""

from dataclasses import dataclass

import chassis


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(chassis.Settings):
    """Settings beyond those of every service."""

    #: Seconds that a reservation is held when ReserveStock does not say.
    hold_seconds: float = 900.0
    #: Seconds between two searches for holds past their time.
    expire_seconds: float = 1.0
    #: Messages a second that all watchers of the process get together; each gets its share.
    watch_messages_per_second: float = 200.0
    #: Seconds between two messages about a SKU to one watcher, at least.
    watch_interval_seconds: float = 0.25
