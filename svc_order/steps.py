"""What each step of the saga asks of another service, and how it is undone.

Every request carries a key made of the saga and the step, so that a repeat is answered with the first result, a refusal
included; only when a person sets a parked saga going again is it a new request.
"""

import asyncio
from collections.abc import Awaitable, Callable

from chassis import OutcomeUnknown
from chassis.cancellation import cancelled_from_outside
from chassis.types.money import money
from shop.chassis.v1.chassis_errors import InvalidRequest
from shop.delivery.v1 import delivery_service_pb2 as delivery_pb
from shop.delivery.v1.delivery_errors import BookingNotFound
from shop.delivery.v1.delivery_service_pb2_grpc import DeliveryServiceStub
from shop.errors import ShopError
from shop.inventory.v1 import inventory_service_pb2 as inventory_pb
from shop.inventory.v1.inventory_errors import ReservationNotFound
from shop.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub
from shop.payment.v1 import payment_service_pb2 as payment_pb
from shop.payment.v1.payment_errors import PaymentNotFound
from shop.payment.v1.payment_service_pb2_grpc import PaymentServiceStub
from shop.type.v1.address_pb2 import Address
from svc_order.domain import Order
from svc_order.domain_saga import Done, Outcome, Pending, Refused, Saga, SagaState, Step, Unknown

Action = Callable[[Saga, Order, str], Awaitable[Outcome]]


class Steps:
    """The steps, done and undone by RPCs of the other services."""

    def __init__(
        self, inventory: InventoryServiceStub, delivery: DeliveryServiceStub, payment: PaymentServiceStub
    ) -> None:
        """Take the stubs of the three participants."""
        self._inventory = inventory
        self._delivery = delivery
        self._payment = payment
        self._do: dict[Step, Action] = {
            Step.RESERVE_STOCK: self._reserve_stock,
            Step.BOOK_SLOT: self._book_slot,
            Step.AUTHORIZE_PAYMENT: self._authorize_payment,
            Step.CONFIRM_RESERVATION: self._confirm_reservation,
            Step.CAPTURE_PAYMENT: self._capture_payment,
            Step.FULFILL_RESERVATION: self._fulfill_reservation,
        }
        self._undo: dict[Step, Action] = {
            Step.RESERVE_STOCK: self._release_reservation,
            Step.BOOK_SLOT: self._release_slot,
            Step.AUTHORIZE_PAYMENT: self._void_payment,
        }

    async def take(self, saga: Saga, order: Order, payment_method_token: str) -> Outcome:
        """Do or undo the saga's present step, and say how that ended."""
        actions = self._undo if saga.state is SagaState.COMPENSATING else self._do
        try:
            return await actions[saga.step](saga, order, payment_method_token)
        except (ReservationNotFound, BookingNotFound, PaymentNotFound) as absent:
            # What was never made needs no undoing.
            return Done() if saga.state is SagaState.COMPENSATING else Refused(absent.reason)
        except ShopError as refusal:
            if refusal.domain == InvalidRequest.domain and not isinstance(refusal, InvalidRequest):
                # Refused by the framework, which says nothing about the step: an earlier try may have done it.
                return Unknown(refusal.reason)
            return Refused(refusal.reason)
        except OutcomeUnknown as error:
            return Unknown(error.code.name)
        except asyncio.CancelledError:
            # At shutdown channels may close under a call; nobody cancels steps.
            if cancelled_from_outside():
                raise
            return Unknown("CANCELLED")

    async def _reserve_stock(self, _saga: Saga, order: Order, _token: str) -> Outcome:
        lines = [inventory_pb.StockLine(sku=line.sku, quantity=line.quantity) for line in order.bill.lines]
        request = inventory_pb.ReserveStockRequest(reservation_id=order.reservation_id, order_id=order.id, lines=lines)
        reservation = await self._inventory.ReserveStock(request)
        held = reservation.state in (inventory_pb.RESERVATION_STATE_HELD, inventory_pb.RESERVATION_STATE_CONFIRMED)
        return Done() if held else Refused("RESERVATION_EXPIRED")

    async def _release_reservation(self, _saga: Saga, order: Order, _token: str) -> Outcome:
        request = inventory_pb.ReleaseReservationRequest(reservation_id=order.reservation_id)
        await self._inventory.ReleaseReservation(request)
        return Done()

    async def _book_slot(self, _saga: Saga, order: Order, _token: str) -> Outcome:
        if not order.slot_id:
            return Done()  # the day is left to the courier
        address = Address.FromString(order.shipping_address)
        request = delivery_pb.BookSlotRequest(
            order_id=order.id,
            slot_id=order.slot_id,
            country_code=address.country_code,
            postal_code=address.postal_code,
        )
        await self._delivery.BookSlot(request)
        return Done()

    async def _release_slot(self, _saga: Saga, order: Order, _token: str) -> Outcome:
        if not order.slot_id:
            return Done()
        request = delivery_pb.ReleaseSlotRequest(order_id=order.id)
        await self._delivery.ReleaseSlot(request)
        return Done()

    async def _authorize_payment(self, saga: Saga, order: Order, token: str) -> Outcome:
        request = payment_pb.AuthorizePaymentRequest(
            payment_id=order.payment_id,
            order_id=order.id,
            user_id=order.user_id,
            amount=money(order.bill.total, order.bill.currency),
            payment_method_token=token,
            request_id=_key(saga, "authorize"),
        )
        payment = await self._payment.AuthorizePayment(request)
        match payment.state:
            case payment_pb.PAYMENT_STATE_AUTHORIZED | payment_pb.PAYMENT_STATE_CAPTURED:
                return Done()
            case payment_pb.PAYMENT_STATE_PROCESSING | payment_pb.PAYMENT_STATE_REQUIRES_ACTION:
                return Pending()
            case _:
                return Refused(payment.decline_code.upper() or "PAYMENT_DECLINED")

    async def _void_payment(self, saga: Saga, order: Order, _token: str) -> Outcome:
        request = payment_pb.VoidPaymentRequest(
            payment_id=order.payment_id, reason="order given up", request_id=_key(saga, "void")
        )
        await self._payment.VoidPayment(request)
        return Done()

    async def _confirm_reservation(self, _saga: Saga, order: Order, _token: str) -> Outcome:
        request = inventory_pb.ConfirmReservationRequest(reservation_id=order.reservation_id)
        await self._inventory.ConfirmReservation(request)
        return Done()

    async def _capture_payment(self, saga: Saga, order: Order, _token: str) -> Outcome:
        request = payment_pb.CapturePaymentRequest(payment_id=order.payment_id, request_id=_key(saga, "capture"))
        payment = await self._payment.CapturePayment(request)
        return Pending() if payment.state == payment_pb.PAYMENT_STATE_AUTHORIZED else Done()

    async def _fulfill_reservation(self, _saga: Saga, order: Order, _token: str) -> Outcome:
        request = inventory_pb.FulfillReservationRequest(reservation_id=order.reservation_id)
        await self._inventory.FulfillReservation(request)
        return Done()


def _key(saga: Saga, action: str) -> str:
    again = f"-{saga.retries}" if saga.retries else ""
    return f"{saga.id}-{action}{again}"
