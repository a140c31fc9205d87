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
    #: Shortest pause in seconds between two fetches of a payment that waits for its customer, a bank, or its expiry.
    payment_poll_seconds: float = 60.0
    #: Span in seconds of the two limits below.
    payment_decline_span_seconds: float = 3600.0
    #: The different methods of one user that may be declined within the span; further payments are refused.
    payment_declined_methods_per_user: int = 5
    #: The payments with one method, of all users, that may be declined within the span.
    payment_declines_per_method: int = 10
