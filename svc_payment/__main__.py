"""Composes svc_payment."""

from datetime import timedelta

from chassis import App, run
from chassis.external.webhooks import RETENTION, secrets_of
from shop.payment.v1.payment_service_pb2_grpc import add_PaymentServiceServicer_to_server
from svc_payment.provider import PaymentProvider
from svc_payment.service import PaymentService
from svc_payment.settings import Settings
from svc_payment.settlement import Settlement


async def compose(app: App, settings: Settings) -> None:
    """Put the service together."""
    settings.require("payment_provider_url", "payment_provider_key")
    secrets = secrets_of("PAYMENT_WEBHOOK_SECRET", settings.payment_webhook_secret)
    timeout = settings.payment_provider_timeout
    provider = PaymentProvider(url=settings.payment_provider_url, key=settings.payment_provider_key, timeout=timeout)
    app.on_close(provider.aclose)
    db = await app.database()
    app.purge_older_than(db, "provider_event", "receive_time", RETENTION)
    settlement = Settlement(db, provider, timeout=timeout, arrival=timedelta(seconds=settings.payment_arrival_seconds))
    payments = PaymentService(db, provider, settlement, secrets)
    app.serve("shop.payment.v1.PaymentService", payments, add_PaymentServiceServicer_to_server)
    app.background(settlement.keep_settling(settings.settle_seconds))


if __name__ == "__main__":
    run("svc_payment", Settings, compose)
