"""What svc_payment can be told from outside."""

from dataclasses import dataclass, field
from typing import Annotated

import chassis
from chassis.settings import Provided


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(chassis.Settings):
    """The payments' own settings."""

    #: Where the payment provider's API is.
    payment_provider_url: Annotated[str, Provided("api_url", "payment_provider")] = ""
    #: What it knows us by.
    payment_provider_key: Annotated[str, Provided("api_key", "payment_provider")] = field(default="", repr=False)
    #: What it signs its webhooks with; two, with a comma between, while one replaces the other.
    payment_webhook_secret: Annotated[str, Provided("webhook_secret", "payment_provider")] = field(
        default="", repr=False
    )
    #: Seconds that one request to the provider may take; then its outcome is unknown.
    payment_provider_timeout: float = 4.0
    #: Seconds after which a payment that was given up, and that the provider never heard of, is closed as voided.
    payment_arrival_seconds: float = 20.0
    #: Seconds between two looks for payments that are due.
    settle_seconds: float = 1.0
