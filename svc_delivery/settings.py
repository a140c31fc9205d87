"""The settings of svc_delivery."""

from dataclasses import dataclass, field
from typing import Annotated

import chassis
from chassis.settings import Provided


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(chassis.Settings):
    """Settings beyond those of every service; without those of the courier only `migrate` runs."""

    #: The courier's API.
    courier_url: Annotated[str, Provided("api_url", "courier")] = ""
    #: The key of its calls.
    courier_key: Annotated[str, Provided("api_key", "courier")] = field(default="", repr=False)
    #: The key that the courier signs its webhooks with; two, with a comma between, while one replaces the other.
    courier_webhook_secret: Annotated[str, Provided("webhook_secret", "courier")] = field(default="", repr=False)
    #: Seconds that one call to the courier may take.
    courier_timeout: float = 2.5
    #: Days ahead for which the rules of the zones create slots.
    slot_days_ahead: int = 14
    #: Seconds between two searches for slots that the rules lack.
    slot_seconds: float = 600.0
    #: Seconds between two searches for shipments whose next submission to the courier is due.
    dispatch_seconds: float = 1.0
    #: Shipments that are submitted to the courier at the same time, beside those of calls.
    dispatch_concurrency: int = 20
