"""Composes svc_order."""

from datetime import timedelta

from chassis import App, run
from shop.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from shop.delivery.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from shop.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub
from shop.order.v1.order_service_pb2_grpc import add_OrderServiceServicer_to_server
from shop.order.v1.saga_service_pb2_grpc import add_SagaServiceServicer_to_server
from shop.payment.v1.payment_service_pb2_grpc import PaymentServiceStub
from svc_order.events import HANDLERS
from svc_order.saga import Driver
from svc_order.service import OrderService
from svc_order.service_sagas import SagaService
from svc_order.settings import Settings
from svc_order.steps import Steps


async def compose(app: App, settings: Settings) -> None:
    """Put the service together."""
    db = await app.database()
    catalog = app.client(CatalogServiceStub, "shop.catalog.v1.CatalogService")
    inventory = app.client(InventoryServiceStub, "shop.inventory.v1.InventoryService")
    payment = app.client(PaymentServiceStub, "shop.payment.v1.PaymentService")
    delivery = app.client(DeliveryServiceStub, "shop.delivery.v1.DeliveryService")
    driver = Driver(
        db,
        Steps(inventory, delivery, payment),
        lease=timedelta(seconds=settings.saga_lease_seconds),
        at_once=settings.sagas_at_once,
    )
    app.on_close(driver.close)
    orders = OrderService(
        db,
        driver,
        catalog=catalog,
        inventory=inventory,
        payment=payment,
        delivery=delivery,
        return_window=timedelta(days=settings.return_days),
    )
    app.serve("shop.order.v1.OrderService", orders, add_OrderServiceServicer_to_server)
    app.serve("shop.order.v1.SagaService", SagaService(db, driver), add_SagaServiceServicer_to_server)
    app.repeat(driver.take_up, settings.saga_poll_seconds)
    app.repeat(orders.complete, settings.complete_seconds)
    await app.consume(db, HANDLERS)


if __name__ == "__main__":
    run("svc_order", Settings, compose)
