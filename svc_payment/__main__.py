"""Composes svc_payment."""

from datetime import timedelta
from functools import partial

from chassis import App, run
from chassis.external.webhooks import secrets_of
from chassis.work.worker import Worker
from svc_payment.provider import PaymentProvider
from svc_payment.reconciler import PaymentReconciler
from svc_payment.service import PaymentService
from svc_payment.settings import Settings

#: The number of payments that are attempted at a time, besides those that callers wait for.
CONCURRENCY = 8


async def compose(app: App, settings: Settings) -> None:
    """Put the service together."""
    settings.require("payment_provider_url", "payment_provider_key")
    secrets = secrets_of("PAYMENT_WEBHOOK_SECRET", settings.payment_webhook_secret)
    timeout = settings.payment_provider_timeout
    provider = PaymentProvider(url=settings.payment_provider_url, key=settings.payment_provider_key, timeout=timeout)
    app.on_close(provider.aclose)
    db = await app.database()
    arrival = timedelta(seconds=settings.payment_arrival_seconds)
    reconciler = PaymentReconciler(db, provider, timeout=timeout, arrival=arrival)
    worker = Worker(db, reconciler, name="reconcile payment", concurrency=CONCURRENCY)
    app.on_close(partial(worker.close, app.settings.drain_seconds))
    app.background(worker.run(settings.reconcile_seconds))
    app.serve(PaymentService(db, provider, reconciler, worker, secrets))


if __name__ == "__main__":
    run("svc_payment", Settings, compose)
