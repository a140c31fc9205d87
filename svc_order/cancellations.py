"""Releases the stock of cancelled lines and refunds them, as jobs of chassis.work.worker.

lines cancelled: the order has its new total -> reservation reduced -> refund requested, if it was captured: COMPLETED
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from chassis import Transaction, current_time
from chassis.domain.backoff import backoff
from chassis.types.money import minor_units
from shop.inventory.v1 import inventory_service_pb2 as inventory_pb
from shop.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub
from shop.payment.v1 import payment_service_pb2 as payment_pb
from shop.payment.v1.payment_service_pb2_grpc import PaymentServiceStub
from svc_order import store, store_cancellations
from svc_order.domain import Order
from svc_order.domain_cancellation import CancellationStep, LineCancellation, refund_due
from svc_order.domain_saga import SagaState, saga_id
from svc_order.refunds import Attempt, attempt, refund_key, request_refund

log = logging.getLogger(__name__)

_LEASE = timedelta(seconds=10)
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(milliseconds=500), timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class CancellationClaim:
    """An attempt at the step of a cancellation, which this process has begun."""

    one: LineCancellation
    order: Order

    @property
    def id(self) -> str:
        """Return the id of the cancellation."""
        return self.one.id

    @property
    def traceparent(self) -> str:
        """Return no trace: a cancellation has one of its own."""
        return ""


class CancellationProcessor:
    """The jobs of cancelled lines. Each call can be repeated: a reduction by its nature, a refund by its key.

    Implements `chassis.work.worker.Jobs`.
    """

    def __init__(self, inventory: InventoryServiceStub, payment: PaymentServiceStub) -> None:
        """Release stock by `inventory` and refund by `payment`."""
        self.lease = _LEASE
        self._inventory = inventory
        self._payment = payment

    async def list_due(self, tx: Transaction, limit: int) -> Sequence[str]:
        """Return the ids of cancellations whose next attempt is due."""
        return await store_cancellations.list_due_cancellations(tx, limit)

    async def claim(self, tx: Transaction, job_id: str) -> CancellationClaim | None:
        """Begin the step of a cancellation; return None when it is not due."""
        before = await store_cancellations.lock_due_cancellation(tx, job_id)
        if before is None:
            return None
        return await self._begin(tx, before, await store.read_order(tx, before.order_id), await current_time(tx))

    async def renew(self, tx: Transaction, job: CancellationClaim) -> None:
        """Extend the lease, unless it was lost."""
        await store_cancellations.renew_cancellation(tx, job.one, self.lease)

    async def execute(self, job: CancellationClaim) -> Attempt:
        """Release the units, or request the refund."""
        return await attempt(self._release(job) if job.one.step is CancellationStep.RELEASE else self._refund(job))

    async def settle(self, tx: Transaction, job: CancellationClaim, result: Attempt) -> CancellationClaim | None:
        """Write the result of a step, and begin the next one."""
        before, order = await store_cancellations.lock_cancellation(tx, job.id)
        if before.version != job.one.version:
            return None  # another process has resumed the cancellation
        now = await current_time(tx)
        if result.problem and not (result.is_final and await _is_undone(tx, order)):
            log.warning("cancellation waits", extra={"cancellation": before.id, "problem": result.problem})
            await store_cancellations.update_cancellation(tx, _unsuccessful(before, result, now))
            return None
        if before.step is CancellationStep.RELEASE:
            return await self._begin(tx, before.released(now), order, now)
        await store_cancellations.update_cancellation(tx, before.completed(now, result.refund))
        return None

    async def _begin(self, tx: Transaction, one: LineCancellation, order: Order, now: datetime) -> CancellationClaim:
        claimed = one.claimed(now, self.lease)
        await store_cancellations.update_cancellation(tx, claimed)
        return CancellationClaim(claimed, order)

    async def _release(self, job: CancellationClaim) -> int:
        await reduce_reservation(self._inventory, job.order)
        return 0

    async def _refund(self, job: CancellationClaim) -> int:
        request = payment_pb.GetPaymentByOrderRequest(order_id=job.order.id)
        payment = await self._payment.GetPaymentByOrder(request)
        refund = refund_due(job.order, job.one, minor_units(payment.captured_amount, "captured_amount"))
        reason, key = f"cancellation {job.id}", refund_key(job.id, job.one.retries)
        await request_refund(self._payment, job.order, refund, reason=reason, key=key)
        return refund


async def reduce_reservation(stub: InventoryServiceStub, order: Order) -> None:
    """Reduce the reservation of an order to its lines; it never grows, so any repeat takes effect once."""
    lines = [inventory_pb.StockLine(sku=line.sku, quantity=line.quantity) for line in order.totals.lines]
    await stub.ReduceReservation(
        inventory_pb.ReduceReservationRequest(reservation_id=order.reservation_id, lines=lines)
    )


def _unsuccessful(one: LineCancellation, result: Attempt, now: datetime) -> LineCancellation:
    if result.is_final and one.step is CancellationStep.REFUND:
        return one.refund_refused(result.problem, now)
    return one.postponed(now, backoff(one.attempts, _FIRST_PAUSE, _LONGEST_PAUSE), result.problem)


async def _is_undone(tx: Transaction, order: Order) -> bool:
    """Return whether the whole order is cancelled, which releases and refunds everything."""
    saga = store.saga_from_row(await store.read_saga_row(tx, saga_id(order.id)))
    return SagaState.COMPENSATING in (saga.state, saga.parked_from) or saga.state is SagaState.COMPENSATED
