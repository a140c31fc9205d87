"""What svc_delivery can be told from outside."""

from dataclasses import dataclass, field
from typing import Annotated

import chassis
from chassis.settings import Provided


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(chassis.Settings):
    """The delivery's own settings. Those of the courier have no default; `migrate` alone does without them."""

    #: The courier's API.
    courier_url: Annotated[str, Provided("api_url", "courier")] = ""
    #: Our key to it.
    courier_key: Annotated[str, Provided("api_key", "courier")] = field(default="", repr=False)
    #: What the courier signs its webhooks with; two, with a comma between, while one replaces the other.
    courier_webhook_secret: Annotated[str, Provided("webhook_secret", "courier")] = field(default="", repr=False)
    #: Seconds that one question to the courier may take.
    courier_timeout: float = 2.5
    #: Days ahead for which the rules of the zones make slots.
    slot_days_ahead: int = 14
    #: Seconds between two looks for slots that the rules ask for.
    slot_seconds: float = 600.0
    #: Seconds between two looks for parcels that the courier has not answered for.
    dispatch_seconds: float = 1.0
