"""What svc_inventory can be told from outside."""

from dataclasses import dataclass

import chassis


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(chassis.Settings):
    """The inventory's own settings."""

    #: Seconds that a hold lasts when the caller of ReserveStock does not say.
    hold_seconds: float = 900.0
    #: Seconds between two looks for holds that have lapsed.
    sweep_seconds: float = 1.0
