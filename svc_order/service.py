"""The RPCs of orders. What follows a commit, the saga, is a second step: `drive_and_reload`."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Collection
from contextlib import suppress
from datetime import timedelta
from functools import partial

from chassis import (
    Context,
    Database,
    OutcomeUnknown,
    Transaction,
    Watch,
    current_call,
    current_time,
    current_user,
    outbox,
    owner_filter,
    require_owner,
    stored_reply,
    transactional,
)
from chassis.postgres.database import UNAVAILABLE_ERRORS
from chassis.postgres.lane import shared_reads
from chassis.types.money import money
from chassis.types.pagination import END_OF_TIME, Keyset, parse_time
from chassis.work.worker import Worker
from shop.delivery.v1 import shipment_service_pb2 as shipment_pb
from shop.delivery.v1.delivery_errors import ShipmentNotFound
from shop.delivery.v1.shipment_service_pb2_grpc import ShipmentServiceStub
from shop.inventory.v1 import inventory_service_pb2 as inventory_pb
from shop.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub
from shop.order.v1 import order_service_pb2 as pb
from shop.order.v1.order_errors import OrderNotFound, TooManyOpenOrders
from shop.order.v1.order_service_pb2_grpc import OrderServiceServicer
from svc_order import converters, domain_progress, store
from svc_order.domain import TRANSITIONS, Order, OrderTotals, State
from svc_order.domain_saga import Saga, saga_id
from svc_order.domain_steps import Pending, StepResult
from svc_order.payments import Payments
from svc_order.pricing import Pricing, check_expected_total
from svc_order.saga import SagaOrchestrator
from svc_order.settings import Settings
from svc_order.steps import Claim
from svc_order.timeline import read_timeline

_MAX_OPEN_ORDERS = 20
#: The part of a caller's deadline that is kept for the reply.
_REPLY_SECONDS = 0.25
_COMPLETION_BATCH = 100
_ORDERS = Keyset(parse_time, str, start=(END_OF_TIME, ""))


class _TooManyPending(Exception):
    """The user has the maximum number of pending orders. No ShopError, which would be stored although it passes."""


class OrderService(OrderServiceServicer):
    """Places, shows, cancels and ships orders."""

    def __init__(
        self,
        db: Database,
        sagas: SagaOrchestrator,
        worker: Worker[Claim, StepResult],
        *,
        pricing: Pricing,
        inventory: InventoryServiceStub,
        payments: Payments,
        shipments: ShipmentServiceStub,
        settings: Settings,
    ) -> None:
        """`sagas` begins sagas and `worker` executes them."""
        self.db = db
        self.sagas = sagas
        self.worker = worker
        self.pricing = pricing
        self.inventory = inventory
        self.payments = payments
        self.shipments = shipments
        self.settings = settings
        self.reads = shared_reads(self._read_orders)
        self.orders: Watch[Order] = Watch(db.change_feed, self._read_orders)

    async def PreviewOrder(self, request: pb.PreviewOrderRequest, context: Context) -> pb.PreviewOrderResponse:
        address = request.shipping_address if request.HasField("shipping_address") else None
        totals = await self.pricing.quote(request.lines, request.currency_code, address)
        stocks = await self.inventory.BatchGetStock(
            inventory_pb.BatchGetStockRequest(skus=[line.sku for line in totals.lines])
        )
        available = {stock.sku: stock.available for stock in stocks.stocks}
        return pb.PreviewOrderResponse(
            lines=converters.lines_to_proto(totals),
            subtotal=money(totals.subtotal, totals.currency),
            shipping_fee=money(totals.shipping_fee, totals.currency) if address else None,
            tax_total=money(totals.tax_total, totals.currency),
            total=money(totals.total, totals.currency),
            short_skus=[line.sku for line in totals.lines if available.get(line.sku, 0) < line.quantity],
        )

    async def CreateOrder(self, request: pb.CreateOrderRequest, context: Context) -> pb.Order:
        # Before anything else: prices may have changed since the first request.
        if order := await stored_reply(self.db, request, pb.Order):
            return await self.drive_and_reload(order)
        totals = await self.pricing.quote(request.lines, request.currency_code, request.shipping_address)
        check_expected_total(request, totals)
        await self.payments.validate_method(request.payment_method_token, totals)
        try:
            order = await self._place_order(request, context, totals)
        except _TooManyPending:
            raise TooManyOpenOrders(limit=_MAX_OPEN_ORDERS) from None
        return await self.drive_and_reload(order)

    @transactional
    async def _place_order(self, request: pb.CreateOrderRequest, tx: Transaction, totals: OrderTotals) -> pb.Order:
        """Insert an order and its saga, and begin the saga's first step, which would cost a transaction later."""
        now = await current_time(tx)
        if not tx.optimistic and await store.has_most_pending(tx, current_user().id, _MAX_OPEN_ORDERS):
            raise _TooManyPending
        call, key = current_call(), uuid.uuid4().hex
        order = Order(
            id=f"order-{key}",
            user_id=current_user().id,
            totals=totals,
            shipping_address=request.shipping_address.SerializeToString(),
            slot_id=request.slot_id,
            reservation_id=f"reservation-{key}",
            payment_id=f"payment-{key}",
            create_time=now,
            update_time=now,
        )
        traceparent = call.traceparent if call else ""
        saga = Saga(
            id=saga_id(order.id),
            order_id=order.id,
            next_attempt_time=now,
            deadline=now + timedelta(seconds=self.settings.confirm_seconds),
            keep_on_decline=request.keep_on_decline or self.settings.keep_declined_orders,
            traceparent=traceparent,
        )
        claim = self.sagas.begin(Claim(saga, order, request.payment_method_token), now)
        await store.insert_order(tx, order, _MAX_OPEN_ORDERS)
        await store.insert_saga(tx, claim.saga, request.payment_method_token, now)
        await store.write_steps(tx, (claim.saga, Pending()))
        await outbox.add(tx, converters.order_created_event(order))
        self.db.on_commit(tx, partial(self.worker.start, saga.id, claim))
        return converters.order_to_proto(order)

    async def GetOrder(self, request: pb.GetOrderRequest, context: Context) -> pb.Order:
        return converters.order_to_proto(await self._read_own_order(request.order_id))

    async def ListOrders(self, request: pb.ListOrdersRequest, context: Context) -> pb.ListOrdersResponse:
        page = _ORDERS.page(request)
        user_id, state = owner_filter(request.user_id), converters.state_from_proto(request.state)
        async with self.db.connection() as tx:
            orders = await store.list_orders(tx, user_id=user_id, state=state, before=page.after, limit=page.limit)
        orders, next_page_token = page.cut(orders, lambda order: (order.create_time, order.id))
        return pb.ListOrdersResponse(orders=map(converters.order_to_proto, orders), next_page_token=next_page_token)

    async def CancelOrder(self, request: pb.CancelOrderRequest, context: Context) -> pb.Order:
        return await self.drive_and_reload(await self._cancel(request, context))

    @transactional
    async def _cancel(self, request: pb.CancelOrderRequest, tx: Transaction) -> pb.Order:
        """Make the saga compensate; return the order as it was before: only `drive_and_reload` reads what follows."""
        saga, order, now = await store.lock_saga_and_order(tx, request.order_id)
        require_owner(order.user_id, OrderNotFound(order_id=order.id))
        if order.state is not State.CANCELLED:
            by = "CUSTOMER" if order.user_id == current_user().id else "STAFF"
            cancelled = domain_progress.cancel(order, saga, now, f"CANCELLED_BY_{by}", request.reason)
            await store.update_saga(tx, cancelled)
        self.db.on_commit(tx, partial(self.worker.start, saga.id))
        return converters.order_to_proto(order)

    async def RetryPayment(self, request: pb.RetryPaymentRequest, context: Context) -> pb.Order:
        order = await stored_reply(self.db, request, pb.Order)
        if order is None:
            totals = (await self._read_own_order(request.order_id)).totals
            await self.payments.validate_method(request.payment_method_token, totals)
            order = await self._pay_again(request, context)
        return await self.drive_and_reload(order)

    @transactional
    async def _pay_again(self, request: pb.RetryPaymentRequest, tx: Transaction) -> pb.Order:
        saga, before, now = await store.lock_saga_and_order(tx, request.order_id)
        require_owner(before.user_id, OrderNotFound(order_id=before.id))
        await store.update_saga(tx, saga.paying_again(now))
        await store.update_payment_method(tx, saga.id, request.payment_method_token)
        order = await store.update_order(tx, before, before.with_next_payment(now))
        await outbox.add(tx, *converters.order_changed_events(before, order))
        self.db.on_commit(tx, partial(self.worker.start, saga.id))
        return converters.order_to_proto(order)

    async def WatchOrder(self, request: pb.WatchOrderRequest, context: Context) -> AsyncIterator[pb.WatchOrderResponse]:
        sent = request.resume_token
        async for orders in self.orders.values([request.order_id]):
            order = _own_order(request.order_id, orders.get(request.order_id))
            if str(order.version) != sent:
                sent = str(order.version)
                yield pb.WatchOrderResponse(order=converters.order_to_proto(order), resume_token=sent)
            if TRANSITIONS.is_final(order.state):
                return

    async def GetOrderTimeline(self, request: pb.GetOrderTimelineRequest, context: Context) -> pb.OrderTimeline:
        order = await self._read_own_order(request.order_id)
        async with self.db.connection() as tx:
            timeline = await read_timeline(tx, order)
        if payment := await self.payments.find(timeline.order_id):
            timeline.payment.CopyFrom(payment)
        return timeline

    async def ShipOrder(self, request: pb.ShipOrderRequest, context: Context) -> shipment_pb.Shipment:
        shipment = await stored_reply(self.db, request, shipment_pb.Shipment)
        if shipment is None:
            await self._check_shippable(request.order_id)
            shipment = await self._request_shipment(request, context)
        if await self._drive(request.order_id):
            with suppress(ShipmentNotFound, OutcomeUnknown):
                get_shipment = shipment_pb.GetShipmentRequest(shipment_id=shipment.shipment_id)
                return await self.shipments.GetShipment(get_shipment)
        return shipment

    @transactional
    async def _request_shipment(self, request: pb.ShipOrderRequest, tx: Transaction) -> shipment_pb.Shipment:
        """Make the step due that creates the order's shipment, and return the shipment as it will be created."""
        saga, before, now = await store.lock_saga_and_order(tx, request.order_id)
        after = before.with_shipment(now, is_shippable=saga.is_shippable)
        await store.update_saga(tx, saga.with_shipment_requested(current_user().id, now))
        saved = await store.update_order(tx, before, after)
        await outbox.add(tx, *converters.order_changed_events(before, saved))
        self.db.on_commit(tx, partial(self.worker.start, saga.id))
        return converters.shipment_to_proto(saved)

    async def drive_and_reload(self, order: pb.Order) -> pb.Order:
        """Execute an order's saga for as long as the caller waits, and return the order as far as it came."""
        await self._drive(order.order_id)
        try:
            async with self.db.connection() as tx:
                return converters.order_to_proto(await store.read_order(tx, order.order_id))
        except UNAVAILABLE_ERRORS:  # the change is committed all the same: an error would say that it is not
            return order

    async def _drive(self, order_id: str) -> bool:
        """Execute an order's saga for as long as the caller waits; return whether it has come to a pause or its end."""
        call, key = current_call(), saga_id(order_id)
        left = call.remaining() if call else None
        with suppress(TimeoutError):
            async with asyncio.timeout(None if left is None else max(0.0, left - _REPLY_SECONDS)):
                # The commit has started the saga. For a repeated request it may have ended, or be left behind.
                if not await self.worker.join(key):
                    await asyncio.wait([self.worker.start(key)])
                return True
        return False

    async def complete_orders(self) -> bool:
        """Complete some orders that can no longer be returned; return whether there may be more."""
        window = timedelta(days=self.settings.return_days)
        async with self.db.connection() as tx:
            order_ids = await store.list_past_return_window(tx, window, _COMPLETION_BATCH)
        for order_id in order_ids:
            async with self.db.transaction() as tx:
                before = await store.lock_order(tx, order_id)
                after = before.transition_to(State.COMPLETED, await current_time(tx))
                saved = await store.update_order(tx, before, after)
                await outbox.add(tx, *converters.order_changed_events(before, saved))
        return len(order_ids) == _COMPLETION_BATCH

    async def _check_shippable(self, order_id: str) -> None:
        """Raise OrderNotFound or OrderNotShippable. Outside of the transaction, which stores errors: these may pass."""
        async with self.db.connection() as tx:
            order = await store.read_order(tx, order_id)
            saga = store.saga_from_row(await store.read_saga_row(tx, saga_id(order_id)))
        order.with_shipment(order.update_time, is_shippable=saga.is_shippable)
        if saga.is_awaiting_shipment:
            await self.payments.check_shippable(order_id)

    async def _read_own_order(self, order_id: str) -> Order:
        """Return an order; raises OrderNotFound unless the user may see it."""
        return _own_order(order_id, await self.reads.submit(order_id))

    async def _read_orders(self, ids: Collection[str]) -> dict[str, Order]:
        async with self.db.connection() as tx:
            return await store.read_orders(tx, ids)


def _own_order(order_id: str, order: Order | None) -> Order:
    not_found = OrderNotFound(order_id=order_id)
    if order is None:
        raise not_found
    require_owner(order.user_id, not_found)
    return order
