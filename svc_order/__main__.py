"""Composes svc_order."""

from datetime import timedelta
from functools import partial

from google.protobuf.message import Message

from chassis import App, Database, Handler, Transaction, run
from chassis.work.worker import J, Result, Worker
from shop.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from shop.delivery.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from shop.delivery.v1.shipment_service_pb2_grpc import ShipmentServiceStub
from shop.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub
from shop.payment.v1.payment_service_pb2_grpc import PaymentServiceStub
from svc_order import events, events_payment
from svc_order.cancellations import CancellationProcessor
from svc_order.domain_saga import Waits
from svc_order.domain_steps import StepResult
from svc_order.payments import Payments
from svc_order.pricing import Pricing
from svc_order.returns import ReturnProcessor
from svc_order.saga import SagaOrchestrator
from svc_order.service import OrderService
from svc_order.service_cancellations import CancellationService
from svc_order.service_returns import ReturnService
from svc_order.service_sagas import SagaService
from svc_order.settings import Settings
from svc_order.steps import Claim, Steps

#: Seconds; longer than any step takes by its contract.
_LONGEST_STEP = 10.0


async def compose(app: App, settings: Settings) -> None:
    """Put the service together."""
    db = await app.database()
    inventory, payment = app.client(InventoryServiceStub), app.client(PaymentServiceStub)
    steps = Steps(
        app.client(InventoryServiceStub, retries=False),
        app.client(DeliveryServiceStub, retries=False),
        app.client(PaymentServiceStub, retries=False),
        app.client(ShipmentServiceStub, retries=False),
    )
    waits = Waits(shipment=timedelta(days=settings.ship_days), pickup=timedelta(days=settings.pickup_days))
    sagas = SagaOrchestrator(steps, lease=timedelta(seconds=settings.saga_lease_seconds), waits=waits)
    worker = Worker(db, sagas, name="saga", concurrency=settings.saga_concurrency)
    _start(app, worker, settings.saga_poll_seconds)
    orders = OrderService(
        db,
        sagas,
        worker,
        pricing=Pricing(app.client(CatalogServiceStub), app.client(DeliveryServiceStub)),
        inventory=inventory,
        payments=Payments(payment),
        shipments=app.client(ShipmentServiceStub),
        settings=settings,
    )
    limit, poll = settings.return_concurrency, settings.return_poll_seconds
    returns = _start(app, Worker(db, ReturnProcessor(inventory, payment), name="return", concurrency=limit), poll)
    processor = CancellationProcessor(inventory, payment)
    cancellations = _start(app, Worker(db, processor, name="line cancellation", concurrency=limit), poll)
    window = timedelta(days=settings.return_days)
    others = SagaService(db, worker), ReturnService(db, returns, window=window), CancellationService(db, cancellations)
    app.serve(orders, *others)
    app.repeat(orders.complete_orders, settings.complete_seconds)
    shipments = {kind: _waking(handler, db, worker) for kind, handler in events.handlers(waits).items()}
    await app.consume(db, {**shipments, **events_payment.HANDLERS})


def _start(app: App, worker: Worker[J, Result], poll_seconds: float) -> Worker[J, Result]:
    """Resume due jobs for as long as the service runs, and wait for those under way at its end."""
    app.background(worker.run(poll_seconds))
    app.on_close(partial(worker.close, _LONGEST_STEP))
    return worker


def _waking(handler: Handler, db: Database, worker: Worker[Claim, StepResult]) -> Handler:
    """Return the handler of an event after which the worker looks for sagas that the event has made due."""

    async def handle(tx: Transaction, event: Message) -> None:
        await handler(tx, event)
        db.on_commit(tx, worker.wake)

    return handle


if __name__ == "__main__":
    run("svc_order", Settings, compose)
