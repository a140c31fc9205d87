"""The RPCs of orders."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

from chassis import Context, Database, Transaction, current_call, current_user, idempotent, outbox, stored_reply
from chassis.postgres.database import UNAVAILABLE_ERRORS
from chassis.types.money import minor_units, money, text
from chassis.types.pagination import page_size, page_token, time_position
from shop.catalog.v1 import catalog_service_pb2 as catalog_pb
from shop.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from shop.chassis.v1.chassis_errors import InvalidRequest
from shop.delivery.v1 import delivery_service_pb2 as delivery_pb
from shop.delivery.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from shop.inventory.v1 import inventory_service_pb2 as inventory_pb
from shop.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub
from shop.order.v1 import order_service_pb2 as pb
from shop.order.v1.order_errors import (
    CurrencyMismatch,
    OrderNotFound,
    PriceChanged,
    TooManyOpenOrders,
)
from shop.order.v1.order_service_pb2_grpc import OrderServiceServicer
from shop.payment.v1 import payment_service_pb2 as payment_pb
from shop.payment.v1.payment_service_pb2_grpc import PaymentServiceStub
from shop.type.v1.address_pb2 import Address
from svc_order import domain, domain_saga, messages, store
from svc_order.domain import Bill, Offer, Order, State
from svc_order.domain_saga import Saga
from svc_order.saga import Claim, Driver

_MOST_OPEN_ORDERS = 20
_STAFF = frozenset({"staff", "admin"})
#: Kept of a caller's deadline for the answer itself.
_ANSWER_SECONDS = 0.25
_COMPLETED_AT_ONCE = 100
#: What QuoteDelivery prices at most.
_HEAVIEST_GRAMS = 100_000_000
_BEFORE_ALL = (datetime(9999, 1, 1, tzinfo=UTC), "")


class OrderService(OrderServiceServicer):
    """Takes, shows and cancels orders."""

    def __init__(
        self,
        db: Database,
        driver: Driver,
        *,
        catalog: CatalogServiceStub,
        inventory: InventoryServiceStub,
        payment: PaymentServiceStub,
        delivery: DeliveryServiceStub,
        return_window: timedelta,
    ) -> None:
        """Drive sagas by `driver`; the stubs answer what a cart costs and whether it can be had.

        `return_window` after its delivery an order can no longer be given back.
        """
        self.db = db
        self.driver = driver
        self.return_window = return_window
        self.catalog = catalog
        self.inventory = inventory
        self.payment = payment
        self.delivery = delivery

    async def PreviewOrder(self, request: pb.PreviewOrderRequest, context: Context) -> pb.PreviewOrderResponse:
        address = request.shipping_address if request.HasField("shipping_address") else None
        bill = await self._price(request.lines, request.currency_code, address)
        stocks = await self.inventory.BatchGetStock(
            inventory_pb.BatchGetStockRequest(skus=[line.sku for line in bill.lines])
        )
        available = {stock.sku: stock.available for stock in stocks.stocks}
        return pb.PreviewOrderResponse(
            lines=messages.lines_to_proto(bill),
            subtotal=money(bill.subtotal, bill.currency),
            shipping_fee=money(bill.shipping_fee, bill.currency) if address else None,
            tax_total=money(bill.tax_total, bill.currency),
            total=money(bill.total, bill.currency),
            short_skus=[line.sku for line in bill.lines if available.get(line.sku, 0) < line.quantity],
        )

    async def CreateOrder(self, request: pb.CreateOrderRequest, context: Context) -> pb.Order:
        # A repeat is answered before prices are asked for: they may have changed since the first.
        if order := await stored_reply(self.db, request, pb.Order):
            return await self.reached(order)
        await self._check_open_orders()
        bill = await self._price(request.lines, request.currency_code, request.shipping_address)
        _agree(request, bill)
        await self._validate_payment_method(request.payment_method_token, bill)
        claim: Claim | None = None

        async def change(tx: Transaction) -> pb.Order:
            nonlocal claim
            claim = await self._take(tx, request, bill)
            return messages.order_to_proto(claim.order)

        order = await idempotent(self.db, request, pb.Order, change)
        return await self.reached(order, claim)

    async def GetOrder(self, request: pb.GetOrderRequest, context: Context) -> pb.Order:
        async with self.db.connection() as tx:
            return messages.order_to_proto(_visible(await store.read_order(tx, request.order_id)))

    async def ListOrders(self, request: pb.ListOrdersRequest, context: Context) -> pb.ListOrdersResponse:
        user, size = current_user(), page_size(request.page_size)
        state = pb.OrderState.Name(request.state).removeprefix("ORDER_STATE_") if request.state else ""
        owner = request.user_id if user.roles & _STAFF else user.id
        async with self.db.connection() as tx:
            before = time_position(request.page_token, _BEFORE_ALL)
            orders = await store.list_orders(tx, user_id=owner, state=state, before=before, limit=size + 1)
        last = orders[size - 1] if len(orders) > size else None
        return pb.ListOrdersResponse(
            orders=[messages.order_to_proto(order) for order in orders[:size]],
            next_page_token=page_token(last.create_time.isoformat(), last.id) if last else "",
        )

    async def CancelOrder(self, request: pb.CancelOrderRequest, context: Context) -> pb.Order:
        async def change(tx: Transaction) -> pb.Order:
            _visible(await store.read_order(tx, request.order_id))
            saga, now = await store.lock_saga(tx, domain_saga.saga_id(request.order_id))
            order = await store.lock_order(tx, request.order_id)
            if order.state is not State.CANCELLED:
                by = "CUSTOMER" if order.user_id == current_user().id else "STAFF"
                await store.update_saga(tx, domain_saga.cancel(order, saga, now, f"CANCELLED_BY_{by}", request.reason))
            return messages.order_to_proto(order)

        return await self.reached(await idempotent(self.db, request, pb.Order, change))

    async def WatchOrder(self, request: pb.WatchOrderRequest, context: Context) -> AsyncIterator[pb.WatchOrderResponse]:
        seen = request.resume_token
        async for _ in self.db.change_feed.subscribe([request.order_id]):
            async with self.db.connection() as tx:
                order = _visible(await store.read_order(tx, request.order_id))
            if str(order.version) != seen:
                seen = str(order.version)
                yield pb.WatchOrderResponse(order=messages.order_to_proto(order), resume_token=seen)
            if not domain.MOVES[order.state]:
                return

    async def GetOrderTimeline(self, request: pb.GetOrderTimelineRequest, context: Context) -> pb.OrderTimeline:
        async with self.db.connection() as tx:
            order = _visible(await store.read_order(tx, request.order_id))
            history = await store.list_history(tx, order.id)
            steps = await store.list_steps(tx, domain_saga.saga_id(order.id))
        return pb.OrderTimeline(
            order_id=order.id,
            transitions=[messages.transition_to_proto(row) for row in history],
            steps=[messages.step_to_proto(row) for row in steps],
        )

    async def StartFulfillment(self, request: pb.StartFulfillmentRequest, context: Context) -> pb.Order:
        async with self.db.transaction() as tx:
            await store.read_order(tx, request.order_id)
            saga, now = await store.lock_saga(tx, domain_saga.saga_id(request.order_id))
            before = await store.lock_order(tx, request.order_id)
            after = before.tied(request.shipment_id, now, ships=saga.ships)
            after = await store.update_order(tx, before, after)
            await outbox.add(tx, *messages.changes(before, after))
        return messages.order_to_proto(after)

    async def reached(self, order: pb.Order, claim: Claim | None = None) -> pb.Order:
        """Drive an order's saga for as long as the caller waits, and return the order as far as it came."""
        call = current_call()
        left = call.remaining() if call else None
        driving = self.driver.start(domain_saga.saga_id(order.order_id), claim)
        await asyncio.wait([driving], timeout=None if left is None else max(0.0, left - _ANSWER_SECONDS))
        try:
            async with self.db.connection() as tx:
                return messages.order_to_proto(await store.read_order(tx, order.order_id))
        except UNAVAILABLE_ERRORS:  # the order is taken all the same: no error must make it look as if it were not
            return order

    async def complete(self) -> bool:
        """Complete some orders whose time to give them back is over; returns whether there may be more."""
        async with self.db.connection() as tx:
            over = await store.list_returnable_over(tx, self.return_window, _COMPLETED_AT_ONCE)
        for order_id in over:
            async with self.db.transaction() as tx:
                before = await store.lock_order(tx, order_id)
                after = before.moved(State.COMPLETED, await store.read_now(tx))
                after = await store.update_order(tx, before, after)
                await outbox.add(tx, *messages.changes(before, after))
        return len(over) == _COMPLETED_AT_ONCE

    async def _price(self, cart: Sequence[pb.CartLine], currency: str, address: Address | None) -> Bill:
        """Return what a cart costs now; without an address, without its delivery."""
        skus = list(dict.fromkeys(line.sku for line in cart))
        answer = await self.catalog.BatchGetVariants(catalog_pb.BatchGetVariantsRequest(skus=skus))
        offers = {one.sku: _offer(one) for one in answer.variants if one.active}
        lines = domain.price([(line.sku, line.quantity) for line in cart], offers, currency)
        if address is None:
            return domain.bill(lines, currency, 0, 0)
        weight = domain.weight_grams(lines)
        if weight > _HEAVIEST_GRAMS:
            raise InvalidRequest(field="lines", problem=f"weigh more than {_HEAVIEST_GRAMS} g, and cannot be delivered")
        quote = await self.delivery.QuoteDelivery(
            delivery_pb.QuoteDeliveryRequest(
                country_code=address.country_code,
                postal_code=address.postal_code,
                weight_grams=weight,
                currency_code=currency,
            )
        )
        return domain.bill(lines, currency, minor_units(quote.fee, "fee"), quote.tax_rate_basis_points)

    async def _check_open_orders(self) -> None:
        """Raise TooManyOpenOrders. Outside of `once`, which would keep a refusal that passes with the next order."""
        async with self.db.connection() as tx:
            if await store.count_pending(tx, current_user().id) >= _MOST_OPEN_ORDERS:
                raise TooManyOpenOrders(limit=_MOST_OPEN_ORDERS)

    async def _validate_payment_method(self, token: str, bill: Bill) -> None:
        await self.payment.ValidatePaymentMethod(
            payment_pb.ValidatePaymentMethodRequest(
                user_id=current_user().id, payment_method_token=token, amount=money(bill.total, bill.currency)
            )
        )

    async def _take(self, tx: Transaction, request: pb.CreateOrderRequest, bill: Bill) -> Claim:
        user_id, now = current_user().id, await store.read_now(tx)
        key = uuid.uuid4().hex
        order = Order(
            id=f"order-{key}",
            user_id=user_id,
            bill=bill,
            shipping_address=request.shipping_address.SerializeToString(),
            slot_id=request.slot_id,
            reservation_id=f"reservation-{key}",
            payment_id=f"payment-{key}",
            create_time=now,
            update_time=now,
        )
        call = current_call()
        saga = Saga(
            id=domain_saga.saga_id(order.id),
            order_id=order.id,
            next_attempt_time=now,
            traceparent=call.traceparent if call else "",
        )
        await store.insert_order(tx, order)
        await store.insert_saga(tx, saga, request.payment_method_token, now)
        await outbox.add(tx, messages.order_created(order))
        return await self.driver.begin(tx, saga, order, request.payment_method_token, now)


def _visible(order: Order) -> Order:
    """Return the order if the user may see it; to others it does not exist."""
    user = current_user()
    if order.user_id != user.id and not user.roles & _STAFF:
        raise OrderNotFound(order_id=order.id)
    return order


def _agree(request: pb.CreateOrderRequest, bill: Bill) -> None:
    """Raise unless the bill is what the customer agreed to."""
    if not request.HasField("expected_total"):
        return
    expected = request.expected_total
    if expected.currency_code != bill.currency:
        raise CurrencyMismatch(expected=bill.currency, subject="expected_total", actual=expected.currency_code)
    agreed = minor_units(expected, "expected_total")
    if agreed != bill.total:
        raise PriceChanged(actual_total=text(bill.total, bill.currency), expected_total=text(agreed, bill.currency))


def _offer(variant: catalog_pb.VariantSnapshot) -> Offer:
    return Offer(
        sku=variant.sku,
        product_id=variant.product_id,
        name=variant.name,
        unit_price=minor_units(variant.price, "price"),
        currency=variant.price.currency_code,
        tax_rate_basis_points=variant.tax_rate_basis_points,
        weight_grams=variant.weight_grams,
    )
