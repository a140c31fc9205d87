"""Composes svc_delivery."""

from chassis import App, run
from chassis.external.webhooks import secrets_of
from chassis.work.worker import Worker
from svc_delivery.courier import Courier
from svc_delivery.dispatch import Dispatch
from svc_delivery.service import DeliveryService
from svc_delivery.service_shipments import ShipmentService
from svc_delivery.settings import Settings


async def compose(app: App, settings: Settings) -> None:
    """Put the service together."""
    settings.require("courier_url", "courier_key")
    secrets = secrets_of("COURIER_WEBHOOK_SECRET", settings.courier_webhook_secret)
    db = await app.database()
    courier = Courier(url=settings.courier_url, key=settings.courier_key, timeout=settings.courier_timeout)
    app.on_close(courier.aclose)
    dispatch = Dispatch(courier)
    worker = Worker(db, dispatch, name="dispatch", concurrency=settings.dispatch_concurrency)
    app.on_close(lambda: worker.close(app.settings.drain_seconds))
    delivery = DeliveryService(db, days_ahead=settings.slot_days_ahead)
    app.serve(delivery, ShipmentService(db, dispatch, worker, secrets))
    app.repeat(delivery.create_slots, settings.slot_seconds)
    app.background(worker.run(settings.dispatch_seconds))


if __name__ == "__main__":
    run("svc_delivery", Settings, compose)
