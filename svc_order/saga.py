"""Executes sagas, as jobs of chassis.work.worker: what each step calls, and what its result makes of saga and order.

Each call can be repeated: by the ids in the order, or by a key made of the saga and the step, under which a repeat
returns the first result, an error included; only after RetrySaga is it a new request. A process that lost its lease
writes nothing, because the saga's version has moved on.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from chassis import OutcomeUnknown, Transaction, outbox
from chassis.cancellation import cancelled_from_outside
from chassis.types.money import money
from shop.chassis.v1.chassis_errors import InvalidRequest
from shop.delivery.v1 import delivery_service_pb2 as delivery_pb
from shop.delivery.v1 import shipment_service_pb2 as shipment_pb
from shop.delivery.v1.delivery_errors import BookingNotFound, ShipmentStateConflict
from shop.delivery.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from shop.delivery.v1.shipment_service_pb2_grpc import ShipmentServiceStub
from shop.errors import ShopError
from shop.inventory.v1 import inventory_service_pb2 as inventory_pb
from shop.inventory.v1.inventory_errors import ReservationNotFound
from shop.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub
from shop.payment.v1 import payment_service_pb2 as payment_pb
from shop.payment.v1.payment_errors import PaymentNotFound
from shop.payment.v1.payment_service_pb2_grpc import PaymentServiceStub
from shop.type.v1.address_pb2 import Address
from svc_order import converters, domain_saga, store
from svc_order.domain import Order, deliver_if_arrived
from svc_order.domain_pricing import weight_grams
from svc_order.domain_saga import Done, Pending, Refused, Saga, SagaState, Step, StepResult, Unknown
from svc_order.returns import open_parcel_return


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

    def key(self, action: str) -> str:
        """Return the idempotency key of a call."""
        retry = f"-{self.saga.retries}" if self.saga.retries else ""
        return f"{self.saga.id}-{action}{retry}"


class SagaOrchestrator:
    """Executes the steps of sagas by RPCs of the participants."""

    def __init__(
        self,
        inventory: InventoryServiceStub,
        delivery: DeliveryServiceStub,
        payment: PaymentServiceStub,
        shipments: ShipmentServiceStub,
        *,
        lease: timedelta,
    ) -> None:
        """Claim a step for `lease` at a time."""
        self.lease = lease
        self._inventory = inventory
        self._delivery = delivery
        self._payment = payment
        self._shipments = shipments
        self._do: dict[Step, Callable[[Claim], Awaitable[StepResult]]] = {
            Step.RESERVE_STOCK: self._reserve_stock,
            Step.BOOK_SLOT: self._book_slot,
            Step.AUTHORIZE_PAYMENT: self._authorize_payment,
            Step.CONFIRM_RESERVATION: self._confirm_reservation,
            Step.CREATE_SHIPMENT: self._create_shipment,
            Step.CAPTURE_PAYMENT: self._capture_payment,
            Step.FULFILL_RESERVATION: self._fulfill_reservation,
        }
        self._undo: dict[Step, Callable[[Claim], Awaitable[StepResult]]] = {
            Step.RESERVE_STOCK: self._release_reservation,
            Step.BOOK_SLOT: self._release_slot,
            Step.AUTHORIZE_PAYMENT: self._void_payment,
        }

    async def list_due(self, tx: Transaction, limit: int) -> Sequence[str]:
        """Return the ids of sagas whose next attempt is due, the most overdue first."""
        return await store.list_due_sagas(tx, limit)

    async def claim(self, tx: Transaction, job_id: str) -> Claim | None:
        """Begin the current step of a saga; return None when it is not due or another process has it."""
        due = await store.lock_due_saga(tx, job_id)
        if due is None:
            return None
        saga, token, now = due
        return await self.begin(tx, Claim(saga, await store.read_order(tx, saga.order_id), token), now)

    async def begin(self, tx: Transaction, job: Claim, now: datetime) -> Claim:
        """Begin the current step of a saga that this transaction has locked or inserted."""
        saga = job.saga.claimed(now, self.lease)
        await store.update_saga(tx, saga)
        if saga.state is SagaState.RUNNING:
            await store.write_step(tx, saga, Pending())
        return Claim(saga, job.order, job.payment_method_token)

    async def renew(self, tx: Transaction, job: Claim) -> None:
        """Extend the lease, unless it was lost."""
        await store.renew_saga(tx, job.saga, self.lease)

    async def execute(self, job: Claim) -> StepResult:
        """Do or undo the saga's current step."""
        compensating = job.saga.state is SagaState.COMPENSATING
        try:
            return await (self._undo if compensating else self._do)[job.saga.step](job)
        except (ReservationNotFound, BookingNotFound, PaymentNotFound) as absent:
            return Done() if compensating else Refused(absent.reason)  # what was never made needs no undoing
        except ShopError as error:
            if error.domain == InvalidRequest.domain and not isinstance(error, InvalidRequest):
                # An error of the pipeline says nothing about the step: an earlier attempt may have taken effect.
                return Unknown(error.reason)
            return Refused(error.reason)
        except OutcomeUnknown as error:
            return Unknown(error.code.name)
        except asyncio.CancelledError:
            if cancelled_from_outside():
                raise
            return Unknown("CANCELLED")  # at shutdown a channel may close under a call

    async def settle(self, tx: Transaction, job: Claim, result: StepResult) -> Claim | None:
        """Write the result of a step, and begin the next one when it is due at once."""
        saga, now = await store.lock_saga(tx, job.saga.id)
        if saga.version != job.saga.version:
            return None  # another process has resumed the saga
        advanced = saga.advanced(result, now, random.random())  # noqa: S311  spreads repeats
        order = await _follow(tx, job.order, advanced, (saga.step, result), now)
        await store.write_step(tx, saga, result)
        if advanced.is_active and advanced.next_attempt_time <= now:
            return await self.begin(tx, Claim(advanced, order, job.payment_method_token), now)
        await store.update_saga(tx, advanced)
        return None

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
            amount=money(job.order.totals.total, job.order.totals.currency),
            payment_method_token=job.payment_method_token,
            request_id=job.key("authorize"),
        )
        payment = await self._payment.AuthorizePayment(request)
        match payment.state:
            case payment_pb.PAYMENT_STATE_AUTHORIZED | payment_pb.PAYMENT_STATE_CAPTURED:
                return Done()
            case payment_pb.PAYMENT_STATE_PROCESSING | payment_pb.PAYMENT_STATE_REQUIRES_ACTION:
                return Pending()
            case _:
                return Refused(payment.decline_code.upper() or "PAYMENT_DECLINED")

    async def _void_payment(self, job: Claim) -> StepResult:
        request = payment_pb.VoidPaymentRequest(
            payment_id=job.order.payment_id, reason="order given up", request_id=job.key("void")
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
        return await self._cancel_shipment(job)

    async def _cancel_shipment(self, job: Claim) -> StepResult:
        """Cancel a shipment that failed; its event makes the saga await another one, or its departure go forward."""
        request = shipment_pb.CancelShipmentRequest(shipment_id=job.order.shipment_id, actor="svc_order")
        try:
            shipment = await self._shipments.CancelShipment(request)
        except ShipmentStateConflict:
            return Done()  # it was picked up nevertheless
        return Pending() if shipment.state == shipment_pb.SHIPMENT_STATE_FAILED else Done()

    async def _capture_payment(self, job: Claim) -> StepResult:
        request = payment_pb.CapturePaymentRequest(payment_id=job.order.payment_id, request_id=job.key("capture"))
        payment = await self._payment.CapturePayment(request)
        return Pending() if payment.state == payment_pb.PAYMENT_STATE_AUTHORIZED else Done()

    async def _fulfill_reservation(self, job: Claim) -> StepResult:
        request = inventory_pb.FulfillReservationRequest(reservation_id=job.order.reservation_id)
        await self._inventory.FulfillReservation(request)
        return Done()


async def _follow(tx: Transaction, order: Order, saga: Saga, ended: tuple[Step, StepResult], now: datetime) -> Order:
    """Return the order after a step; most steps do not change it, and then it is not even read."""
    if domain_saga.after_step(order, saga, *ended, now) is order:
        return order
    locked = await store.lock_order(tx, order.id)
    changed = await _save(tx, locked, domain_saga.after_step(locked, saga, *ended, now))
    # A parcel may arrive, or come back, before its payment is captured: the order is SHIPPED first, and then goes on.
    return await open_parcel_return(tx, await _save(tx, changed, deliver_if_arrived(changed, now)), now)


async def _save(tx: Transaction, before: Order, after: Order) -> Order:
    saved = await store.update_order(tx, before, after)
    await outbox.add(tx, *converters.order_changed_events(before, saved))
    return saved
