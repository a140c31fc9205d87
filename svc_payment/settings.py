"""The settings of svc_payment."""

from dataclasses import dataclass, field
from typing import Annotated

import chassis
from chassis.settings import Provided


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(chassis.Settings):
    """Settings beyond those of every service."""

    #: URL of the payment provider's API.
    payment_provider_url: Annotated[str, Provided("api_url", "payment_provider")] = ""
    #: The key that authenticates us to it.
    payment_provider_key: Annotated[str, Provided("api_key", "payment_provider")] = field(default="", repr=False)
    #: The secret that it signs its webhooks with; two, separated by a comma, while one replaces the other.
    payment_webhook_secret: Annotated[str, Provided("webhook_secret", "payment_provider")] = field(
        default="", repr=False
    )
    #: Timeout of a request to the provider in seconds; after it the outcome is unknown.
    payment_provider_timeout: float = 4.0
    #: Seconds that an authorization request may take to reach the provider: a payment whose void was requested longer
    #: ago, and that the provider does not know, is voided.
    payment_arrival_seconds: float = 20.0
    #: Seconds between two searches for payments whose next attempt is due.
    reconcile_seconds: float = 1.0
