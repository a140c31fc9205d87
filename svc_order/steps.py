"""What each step of a saga calls, forward and in compensating.

Each call can be repeated: by the ids in the order, or by a key made of the saga and the step, under which a repeat
returns the first result, an error included; only after RetrySaga is it a new request.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from chassis import OutcomeUnknown
from chassis.cancellation import cancelled_from_outside
from chassis.types.money import money
from shop.chassis.v1.chassis_errors import InvalidRequest
from shop.delivery.v1 import delivery_service_pb2 as delivery_pb
from shop.delivery.v1 import shipment_service_pb2 as shipment_pb
from shop.delivery.v1.delivery_errors import BookingNotFound, ShipmentNotFound, ShipmentStateConflict
from shop.delivery.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from shop.delivery.v1.shipment_service_pb2_grpc import ShipmentServiceStub
from shop.errors import ShopError
from shop.inventory.v1 import inventory_service_pb2 as inventory_pb
from shop.inventory.v1.inventory_errors import ReservationExpired, ReservationNotFound
from shop.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub
from shop.payment.v1 import payment_service_pb2 as payment_pb
from shop.payment.v1.payment_errors import PaymentNotFound
from shop.payment.v1.payment_service_pb2_grpc import PaymentServiceStub
from shop.type.v1.address_pb2 import Address
from svc_order.cancellations import reduce_reservation
from svc_order.domain import Order, State
from svc_order.domain_pricing import weight_grams
from svc_order.domain_saga import Saga, SagaState
from svc_order.domain_steps import Done, Pending, Refused, Step, StepResult, Unknown

#: Of the cancellation of a shipment that does not exist: longer than an attempt to create it is under way.
_ARRIVAL_ATTEMPTS = 5
#: How long stock is held after the customer's time to pay has ended.
_HOLD_MARGIN = timedelta(minutes=10)
_LONGEST_HOLD = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Claim:
    """An attempt at a saga's current step, which this process has begun."""

    saga: Saga
    order: Order
    payment_method_token: str

    @property
    def id(self) -> str:
        """Return the id of the saga."""
        return self.saga.id

    @property
    def traceparent(self) -> str:
        """Return the trace of the call that placed the order."""
        return self.saga.traceparent

    @property
    def payment_try(self) -> str:
        """Return the suffix of the order's payment id: nothing for its first payment, or `-2`."""
        return self.order.payment_id.removeprefix(f"payment-{self.order.id.removeprefix('order-')}")

    def key(self, action: str) -> str:
        """Return the idempotency key of a call."""
        retry = f"-{self.saga.retries}" if self.saga.retries else ""
        return f"{self.saga.id}-{action}{retry}"


class Steps:
    """Executes the steps of sagas by RPCs of the participants."""

    def __init__(
        self,
        inventory: InventoryServiceStub,
        delivery: DeliveryServiceStub,
        payment: PaymentServiceStub,
        shipments: ShipmentServiceStub,
    ) -> None:
        """Call the participants by stubs that make one attempt a call: the saga repeats calls itself."""
        self._inventory = inventory
        self._delivery = delivery
        self._payment = payment
        self._shipments = shipments
        self._do: dict[Step, Callable[[Claim], Awaitable[StepResult]]] = {
            Step.RESERVE_STOCK: self._reserve_stock,
            Step.BOOK_SLOT: self._book_slot,
            Step.AUTHORIZE_PAYMENT: self._authorize_payment,
            Step.AWAIT_PAYMENT: self._await_payment,
            Step.AWAIT_PAYMENT_METHOD: self._give_up_payment,
            Step.CONFIRM_RESERVATION: self._confirm_reservation,
            Step.AWAIT_SHIPMENT: self._give_up_shipment,
            Step.CREATE_SHIPMENT: self._create_shipment,
            Step.AWAIT_PICKUP: self._give_up_pickup,
            Step.CAPTURE_PAYMENT: self._capture_payment,
            Step.FULFILL_RESERVATION: self._fulfill_reservation,
        }
        self._undo: dict[Step, Callable[[Claim], Awaitable[StepResult]]] = {
            Step.RESERVE_STOCK: self._release_reservation,
            Step.BOOK_SLOT: self._release_slot,
            Step.AUTHORIZE_PAYMENT: self._void_payment,
            Step.CREATE_SHIPMENT: self._cancel_shipment,
        }

    async def execute(self, job: Claim) -> StepResult:
        """Do or undo the saga's current step."""
        compensating = job.saga.state is SagaState.COMPENSATING
        try:
            return await (self._undo if compensating else self._do)[job.saga.step](job)
        except (ReservationNotFound, BookingNotFound, PaymentNotFound) as absent:
            return Done() if compensating else Refused(absent.reason)  # what was never made needs no undoing
        except ShopError as error:
            if is_of_pipeline(error):  # an earlier attempt may have taken effect
                return Unknown(error.reason, timedelta(seconds=error.retry_seconds or 0))
            return Refused(error.reason)
        except OutcomeUnknown as error:
            return Unknown(error.code.name)
        except asyncio.CancelledError:
            if cancelled_from_outside():
                raise
            return Unknown("CANCELLED")  # at shutdown a channel may close under a call

    async def _reserve_stock(self, job: Claim) -> StepResult:
        request = inventory_pb.ReserveStockRequest(
            reservation_id=job.order.reservation_id,
            order_id=job.order.id,
            lines=[inventory_pb.StockLine(sku=line.sku, quantity=line.quantity) for line in job.order.totals.lines],
        )
        reservation = await self._inventory.ReserveStock(request)
        held = reservation.state in (inventory_pb.RESERVATION_STATE_HELD, inventory_pb.RESERVATION_STATE_CONFIRMED)
        return Done() if held else Refused("RESERVATION_EXPIRED")

    async def _release_reservation(self, job: Claim) -> StepResult:
        request = inventory_pb.ReleaseReservationRequest(reservation_id=job.order.reservation_id)
        await self._inventory.ReleaseReservation(request)
        return Done()

    async def _book_slot(self, job: Claim) -> StepResult:
        if not job.order.slot_id:
            return Done()  # the courier chooses the day
        address = Address.FromString(job.order.shipping_address)
        request = delivery_pb.BookSlotRequest(
            order_id=job.order.id,
            slot_id=job.order.slot_id,
            country_code=address.country_code,
            postal_code=address.postal_code,
        )
        await self._delivery.BookSlot(request)
        return Done()

    async def _release_slot(self, job: Claim) -> StepResult:
        if job.order.slot_id:
            request = delivery_pb.ReleaseSlotRequest(order_id=job.order.id)
            await self._delivery.ReleaseSlot(request)
        return Done()

    async def _authorize_payment(self, job: Claim) -> StepResult:
        request = payment_pb.AuthorizePaymentRequest(
            payment_id=job.order.payment_id,
            order_id=job.order.id,
            user_id=job.order.user_id,
            amount=money(job.order.payment_amount, job.order.totals.currency),
            payment_method_token=job.payment_method_token,
            request_id=job.key(f"authorize{job.payment_try}"),
        )
        payment = await self._payment.AuthorizePayment(request)
        if payment.state == payment_pb.PAYMENT_STATE_EXPIRED and job.order.state is State.CONFIRMED:
            # Its funds were authorized before. Each renewal has a deadline of its own, and so a key.
            key = job.key(f"reauthorize-{int(job.saga.deadline.timestamp())}")
            again = payment_pb.ReauthorizePaymentRequest(payment_id=payment.payment_id, request_id=key)
            payment = await self._payment.ReauthorizePayment(again)
            if payment.state == payment_pb.PAYMENT_STATE_EXPIRED:
                return Pending()
        return await self._hold_until_paid(job, _authorized(payment))

    async def _await_payment(self, job: Claim) -> StepResult:
        payment = await self._payment.GetPaymentByOrder(payment_pb.GetPaymentByOrderRequest(order_id=job.order.id))
        return await self._hold_until_paid(job, _authorized(payment))

    async def _hold_until_paid(self, job: Claim, result: StepResult) -> StepResult:
        """Hold the stock for as long as the customer has time to pay; return the result."""
        if isinstance(result, Pending) and result.until is not None and job.saga.deadline < result.until:
            request = inventory_pb.ExtendReservationRequest(reservation_id=job.order.reservation_id)
            ttl = max(result.until - datetime.now(UTC), timedelta()) + _HOLD_MARGIN
            request.ttl.FromTimedelta(min(ttl, _LONGEST_HOLD))
            with suppress(ReservationExpired):  # the confirmation says so when it is paid
                await self._inventory.ExtendReservation(request)
        return result

    async def _give_up_payment(self, job: Claim) -> StepResult:
        return Refused(job.saga.reason)

    async def _give_up_shipment(self, _job: Claim) -> StepResult:
        return Refused("NOT_SHIPPED_IN_TIME")

    async def _void_payment(self, job: Claim) -> StepResult:
        request = payment_pb.VoidPaymentRequest(
            payment_id=job.order.payment_id, reason="order given up", request_id=job.key(f"void{job.payment_try}")
        )
        await self._payment.VoidPayment(request)
        return Done()

    async def _confirm_reservation(self, job: Claim) -> StepResult:
        request = inventory_pb.ConfirmReservationRequest(reservation_id=job.order.reservation_id)
        await self._inventory.ConfirmReservation(request)
        return Done()

    async def _create_shipment(self, job: Claim) -> StepResult:
        request = shipment_pb.CreateShipmentRequest(
            order_id=job.order.id,
            shipment_id=job.order.shipment_id,
            user_id=job.order.user_id,
            shipping_address=Address.FromString(job.order.shipping_address),
            slot_id=job.order.slot_id,
            weight_grams=weight_grams(job.order.totals.lines),
            actor=job.saga.shipment_actor,
        )
        shipment = await self._shipments.CreateShipment(request)
        if shipment.state != shipment_pb.SHIPMENT_STATE_FAILED:
            return Done()
        return await self._cancel_failed_shipment(job)

    async def _cancel_failed_shipment(self, job: Claim) -> StepResult:
        """Cancel a shipment that failed; its event makes the saga await another one, or its departure go forward."""
        request = shipment_pb.CancelShipmentRequest(shipment_id=job.order.shipment_id, actor="svc_order")
        try:
            shipment = await self._shipments.CancelShipment(request)
        except ShipmentStateConflict:
            return Done()  # it was picked up nevertheless
        return Pending() if shipment.state == shipment_pb.SHIPMENT_STATE_FAILED else Done()

    async def _give_up_pickup(self, job: Claim) -> StepResult:
        """Cancel a shipment that was not picked up in time; its event, or that of its departure, moves the saga."""
        request = shipment_pb.CancelShipmentRequest(
            shipment_id=job.order.shipment_id, reason="NOT_PICKED_UP_IN_TIME", actor="svc_order"
        )
        with suppress(ShipmentStateConflict):
            await self._shipments.CancelShipment(request)
        return Pending()

    async def _cancel_shipment(self, job: Claim) -> StepResult:
        """Cancel the shipment; a courier that has picked up the parcel refuses, and its event turns the saga again."""
        request = shipment_pb.CancelShipmentRequest(
            shipment_id=job.order.shipment_id, reason=job.saga.reason, actor="svc_order"
        )
        try:
            shipment = await self._shipments.CancelShipment(request)
        except ShipmentNotFound:
            # An attempt to create it may still be under way.
            return Done() if job.saga.attempts > _ARRIVAL_ATTEMPTS else Pending()
        ended = (shipment_pb.SHIPMENT_STATE_CANCELLED, shipment_pb.SHIPMENT_STATE_RETURNED)
        return Done() if shipment.state in ended else Pending()

    async def _capture_payment(self, job: Claim) -> StepResult:
        request = payment_pb.CapturePaymentRequest(payment_id=job.order.payment_id, request_id=job.key("capture"))
        if job.order.cancelled_amount:
            request.amount.CopyFrom(money(job.order.totals.total, job.order.totals.currency))
        payment = await self._payment.CapturePayment(request)
        return Pending() if payment.state == payment_pb.PAYMENT_STATE_AUTHORIZED else Done()

    async def _fulfill_reservation(self, job: Claim) -> StepResult:
        if job.order.cancelled_amount is not None:
            await reduce_reservation(self._inventory, job.order)  # the job of the cancellation may be late
        request = inventory_pb.FulfillReservationRequest(reservation_id=job.order.reservation_id)
        await self._inventory.FulfillReservation(request)
        return Done()


def is_of_pipeline(error: ShopError) -> bool:
    """Return whether an error is of a service's pipeline, which says nothing about what was requested."""
    return error.domain == InvalidRequest.domain and not isinstance(error, InvalidRequest)


def _authorized(payment: payment_pb.Payment) -> StepResult:
    """Return what the state of a payment means for the step that authorizes it."""
    match payment.state:
        case payment_pb.PAYMENT_STATE_AUTHORIZED | payment_pb.PAYMENT_STATE_CAPTURED:
            return Done()
        case payment_pb.PAYMENT_STATE_PROCESSING:
            return Pending()
        case payment_pb.PAYMENT_STATE_REQUIRES_ACTION:
            return Pending(payment.expire_time.ToDatetime(UTC) if payment.HasField("expire_time") else None)
        case _:
            name = payment_pb.PaymentState.Name(payment.state).removeprefix("PAYMENT_STATE_")
            return Refused(payment.decline_code.upper() or f"PAYMENT_{name}")
