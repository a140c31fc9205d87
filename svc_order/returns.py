"""Restocks and refunds received returns, as jobs of chassis.work.worker; opens the returns of parcels that came back.

return RECEIVED -> units back in stock -> refund requested: COMPLETED, or rejected: REFUND_REFUSED
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from chassis import Transaction, current_time, outbox
from chassis.domain.backoff import backoff
from shop.inventory.v1 import inventory_service_pb2 as inventory_pb
from shop.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub
from shop.payment.v1.payment_service_pb2_grpc import PaymentServiceStub
from svc_order import converters, converters_returns, store, store_returns
from svc_order.domain import Fulfillment, Order, State
from svc_order.domain_returns import (
    PARCEL_RETURNED,
    Return,
    ReturnState,
    ReturnStep,
    after_return,
    units_of,
    whole_parcel,
)
from svc_order.refunds import Attempt, attempt, refund_key, request_refund

log = logging.getLogger(__name__)

_LEASE = timedelta(seconds=10)
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(milliseconds=500), timedelta(minutes=5)
#: The actor of the transitions that no user makes.
ACTOR = "svc_order"


@dataclass(frozen=True, slots=True)
class ReturnClaim:
    """An attempt at the step of a return, which this process has begun."""

    one: Return
    order: Order

    @property
    def id(self) -> str:
        """Return the id of the return."""
        return self.one.id

    @property
    def traceparent(self) -> str:
        """Return no trace: a return has one of its own."""
        return ""


class ReturnProcessor:
    """The jobs of received returns. Each call has a key of the return and its step, so a repeat takes effect once.

    Implements `chassis.work.worker.Jobs`.
    """

    def __init__(self, inventory: InventoryServiceStub, payment: PaymentServiceStub) -> None:
        """Restock by `inventory` and refund by `payment`."""
        self.lease = _LEASE
        self._inventory = inventory
        self._payment = payment

    async def list_due(self, tx: Transaction, limit: int) -> Sequence[str]:
        """Return the ids of returns whose next attempt is due."""
        return await store_returns.list_due_returns(tx, limit)

    async def claim(self, tx: Transaction, job_id: str) -> ReturnClaim | None:
        """Begin the step of a return; return None when it is not due."""
        before = await store_returns.lock_due_return(tx, job_id)
        if before is None:
            return None
        return await self._begin(tx, before, await store.read_order(tx, before.order_id), await current_time(tx))

    async def renew(self, tx: Transaction, job: ReturnClaim) -> None:
        """Extend the lease, unless it was lost."""
        await store_returns.renew_return(tx, job.one, self.lease)

    async def execute(self, job: ReturnClaim) -> Attempt:
        """Restock the units, or request the refund."""
        return await attempt(self._restock(job) if job.one.step is ReturnStep.RESTOCK else self._refund(job))

    async def settle(self, tx: Transaction, job: ReturnClaim, result: Attempt) -> ReturnClaim | None:
        """Write the result of a step, and begin the next one."""
        before, order = await store_returns.lock_return(tx, job.id)
        if before.version != job.one.version:
            return None  # another process has resumed the return
        now = await current_time(tx)
        if result.problem:
            await self._postpone(tx, before, order, result, now)
            return None
        if before.step is ReturnStep.RESTOCK:
            return await self._begin(tx, before.restocked(now), order, now)
        await end_return(tx, before, before.transition_to(ReturnState.COMPLETED, now), order, actor=ACTOR)
        return None

    async def _begin(self, tx: Transaction, before: Return, order: Order, now: datetime) -> ReturnClaim:
        claimed = before.claimed(now, self.lease)
        await store_returns.update_return(tx, before, claimed, ACTOR)
        return ReturnClaim(claimed, order)

    async def _postpone(self, tx: Transaction, before: Return, order: Order, result: Attempt, now: datetime) -> None:
        log.warning("return waits", extra={"return": before.id, "step": before.step.value, "problem": result.problem})
        if result.is_final:
            is_restock = before.step is ReturnStep.RESTOCK
            after = (before.not_restocked if is_restock else before.refund_refused)(result.problem, now)
            await store_returns.update_return(tx, before, after, ACTOR, result.problem)
            await outbox.add(tx, converters_returns.return_changed_event(after, order))
        else:
            pause = backoff(before.attempts, _FIRST_PAUSE, _LONGEST_PAUSE)
            await store_returns.update_return(tx, before, before.postponed(now, pause, result.problem), ACTOR)

    async def _restock(self, job: ReturnClaim) -> int:
        lines = [
            inventory_pb.AdjustmentLine(sku=line.sku, location_id=line.location_id, delta=line.restocked)
            for line in job.one.lines
            if line.restocked
        ]
        if lines:
            request = inventory_pb.AdjustStockRequest(
                lines=lines,
                reason=inventory_pb.ADJUSTMENT_REASON_RETURNED,
                reference=job.id,
                request_id=f"{job.id}-restock-{job.one.receipts}",
            )
            await self._inventory.AdjustStock(request)
        return 0

    async def _refund(self, job: ReturnClaim) -> int:
        refund, key = job.one.refund, refund_key(job.id, job.one.retries)
        await request_refund(self._payment, job.order, refund, reason=f"return {job.id}", key=key)
        return refund


async def end_return(
    tx: Transaction, before: Return, after: Return, order: Order, *, actor: str, message: str = ""
) -> None:
    """Write a return that has ended, and the order as it leaves RETURN_REQUESTED."""
    await store_returns.update_return(tx, before, after, actor, message)
    returned = units_of(await store_returns.read_returns_of(tx, order.id))
    saved = await store.update_order(tx, order, after_return(order, after, returned, after.update_time))
    await outbox.add(tx, converters_returns.return_changed_event(after, saved))
    await outbox.add(tx, *converters.order_changed_events(order, saved))


async def open_parcel_return(tx: Transaction, order: Order, now: datetime) -> Order:
    """Open the return of a locked order whose parcel came back after it was paid; return the order as it is then."""
    if order.fulfillment_state is not Fulfillment.RETURNED or order.state is not State.SHIPPED:
        return order
    one = whole_parcel(order, now)
    await store_returns.insert_return(tx, one, ACTOR)
    saved = await store.update_order(tx, order, order.transition_to(State.RETURN_REQUESTED, now, PARCEL_RETURNED))
    await outbox.add(tx, converters_returns.return_changed_event(one, saved))
    return saved
