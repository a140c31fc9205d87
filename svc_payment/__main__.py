"""Composes svc_payment."""

from datetime import timedelta
from functools import partial

from chassis import App, run
from chassis.external.webhooks import secrets_of
from chassis.work.worker import Worker
from svc_payment.disputes import find_disputes
from svc_payment.provider import PaymentProvider
from svc_payment.reconciler import PaymentReconciler
from svc_payment.service import PaymentService
from svc_payment.service_disputes import DisputeService
from svc_payment.settings import Settings
from svc_payment.store import DeclineLimits

#: The number of payments that are attempted at a time, besides those that callers wait for.
CONCURRENCY = 8


def decline_limits(settings: Settings) -> DeclineLimits:
    """Return the limits of declined payments."""
    return DeclineLimits(
        methods_per_user=settings.payment_declined_methods_per_user,
        payments_per_method=settings.payment_declines_per_method,
        span=timedelta(seconds=settings.payment_decline_span_seconds),
    )


async def compose(app: App, settings: Settings) -> None:
    """Put the service together."""
    settings.require("payment_provider_url", "payment_provider_key")
    secrets = secrets_of("PAYMENT_WEBHOOK_SECRET", settings.payment_webhook_secret)
    timeout = settings.payment_provider_timeout
    provider = PaymentProvider(url=settings.payment_provider_url, key=settings.payment_provider_key, timeout=timeout)
    app.on_close(provider.aclose)
    db = await app.database()
    reconciler = PaymentReconciler(
        db,
        provider,
        timeout=timeout,
        arrival=timedelta(seconds=settings.payment_arrival_seconds),
        poll=timedelta(seconds=settings.payment_poll_seconds),
        limits=decline_limits(settings),
    )
    worker = Worker(db, reconciler, name="reconcile payment", concurrency=CONCURRENCY)
    provider.breaker.on_close(worker.wake)
    app.on_close(partial(worker.close, app.settings.drain_seconds))
    app.background(worker.run(settings.reconcile_seconds))
    app.repeat(partial(find_disputes, db, provider, worker), settings.payment_poll_seconds, name="find_disputes")
    payments = PaymentService(db, provider, reconciler, worker, secrets)
    app.serve(payments, DisputeService(payments))


if __name__ == "__main__":
    run("svc_payment", Settings, compose)
