"""What svc_payment can be told from outside."""

from dataclasses import dataclass, field

import chassis
from chassis.settings import SettingsError
from chassis.webhooks import key_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(chassis.Settings):
    """The payments' own settings."""

    #: Where the payment provider's API is.
    payment_provider_url: str = ""
    #: What it knows us by.
    payment_provider_key: str = field(default="", repr=False)
    #: What it signs its webhooks with; two, with a comma between, while one replaces the other.
    payment_webhook_secret: str = field(default="", repr=False)
    #: Seconds that one request to the provider may take; then its outcome is unknown.
    payment_provider_timeout: float = 4.0
    #: Seconds after which a payment that was given up, and that the provider never heard of, is closed as voided.
    payment_arrival_seconds: float = 20.0
    #: Seconds between two looks for payments that are due.
    settle_seconds: float = 1.0

    def webhook_secrets(self) -> tuple[str, ...]:
        """Return the secrets, checked; raises SettingsError, as for an address or key that is missing."""
        for name in ("payment_provider_url", "payment_provider_key", "payment_webhook_secret"):
            if not getattr(self, name):
                raise SettingsError(f"{name.upper()} is not set")
        secrets = tuple(secret.strip() for secret in self.payment_webhook_secret.split(","))
        try:
            for secret in secrets:
                key_of(secret)
        except ValueError as error:
            raise SettingsError(f"PAYMENT_WEBHOOK_SECRET: {error}") from None
        return secrets
