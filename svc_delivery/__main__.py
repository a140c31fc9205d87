"""Composes svc_delivery."""

from chassis import App, run
from chassis.external.webhooks import RETENTION, secrets_of
from shop.delivery.v1.delivery_service_pb2_grpc import add_DeliveryServiceServicer_to_server
from shop.delivery.v1.shipment_service_pb2_grpc import add_ShipmentServiceServicer_to_server
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub
from svc_delivery.courier import Courier
from svc_delivery.dispatch import Dispatcher
from svc_delivery.service import DeliveryService
from svc_delivery.service_shipments import ShipmentService
from svc_delivery.settings import Settings


async def compose(app: App, settings: Settings) -> None:
    """Put the service together."""
    settings.require("courier_url", "courier_key")
    secrets = secrets_of("COURIER_WEBHOOK_SECRET", settings.courier_webhook_secret)
    db = await app.database()
    app.purge_older_than(db, "courier_event", "receive_time", RETENTION)
    courier = Courier(url=settings.courier_url, key=settings.courier_key, timeout=settings.courier_timeout)
    app.on_close(courier.aclose)
    dispatcher = Dispatcher(db, app.client(OrderServiceStub, "shop.order.v1.OrderService"), courier)
    delivery = DeliveryService(db, days_ahead=settings.slot_days_ahead)
    shipments = ShipmentService(db, dispatcher, secrets)
    app.serve("shop.delivery.v1.DeliveryService", delivery, add_DeliveryServiceServicer_to_server)
    app.serve("shop.delivery.v1.ShipmentService", shipments, add_ShipmentServiceServicer_to_server)
    app.repeat(delivery.make_slots, settings.slot_seconds)
    app.repeat(dispatcher.take_up, settings.dispatch_seconds)


if __name__ == "__main__":
    run("svc_delivery", Settings, compose)
