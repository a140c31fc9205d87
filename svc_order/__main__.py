"""Composes svc_order."""

from datetime import timedelta
from functools import partial

from chassis import App, run
from chassis.work.worker import Worker
from shop.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from shop.delivery.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from shop.delivery.v1.shipment_service_pb2_grpc import ShipmentServiceStub
from shop.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub
from shop.payment.v1.payment_service_pb2_grpc import PaymentServiceStub
from svc_order.events import HANDLERS
from svc_order.pricing import Pricing
from svc_order.returns import ReturnProcessor
from svc_order.saga import SagaOrchestrator
from svc_order.service import OrderService
from svc_order.service_returns import ReturnService
from svc_order.service_sagas import SagaService
from svc_order.settings import Settings

#: Seconds; longer than any step takes by its contract.
_LONGEST_STEP = 10.0


async def compose(app: App, settings: Settings) -> None:
    """Put the service together."""
    db = await app.database()
    inventory, payment = app.client(InventoryServiceStub), app.client(PaymentServiceStub)
    delivery, shipments = app.client(DeliveryServiceStub), app.client(ShipmentServiceStub)
    lease = timedelta(seconds=settings.saga_lease_seconds)
    sagas = SagaOrchestrator(inventory, delivery, payment, shipments, lease=lease)
    worker = Worker(db, sagas, name="saga", concurrency=settings.saga_concurrency)
    app.background(worker.run(settings.saga_poll_seconds))
    app.on_close(partial(worker.close, _LONGEST_STEP))
    orders = OrderService(
        db,
        sagas,
        worker,
        pricing=Pricing(app.client(CatalogServiceStub), delivery),
        inventory=inventory,
        payment=payment,
        shipments=shipments,
        return_window=timedelta(days=settings.return_days),
    )
    returns = Worker(db, ReturnProcessor(inventory, payment), name="return", concurrency=settings.return_concurrency)
    app.background(returns.run(settings.return_poll_seconds))
    app.on_close(partial(returns.close, _LONGEST_STEP))
    window = timedelta(days=settings.return_days)
    app.serve(orders, SagaService(db, worker), ReturnService(db, returns, window=window))
    app.repeat(orders.complete_orders, settings.complete_seconds)
    await app.consume(db, HANDLERS)


if __name__ == "__main__":
    run("svc_order", Settings, compose)
