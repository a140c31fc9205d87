"""Reads and writes the jobs that submit shipments to the courier or cancel them there: the rows of `dispatch`."""

from collections.abc import Sequence
from datetime import timedelta

from chassis import Transaction, current_call
from svc_delivery.domain_shipment import DispatchJob, Shipment
from svc_delivery.store import sql
from svc_delivery.store_shipment import shipment_from_row


async def insert_claimed(tx: Transaction, shipment: Shipment, lease: timedelta) -> DispatchJob | None:
    """Write the job of a shipment, claimed; return None when its order has a job."""
    call = current_call()
    traceparent = call.traceparent if call else ""
    if not await tx.fetchval(sql.insert_claimed_dispatch, shipment.order_id, traceparent, lease):
        return None
    return DispatchJob(order_id=shipment.order_id, attempt=1, traceparent=traceparent, shipment=shipment)


async def list_due(tx: Transaction, limit: int) -> Sequence[str]:
    """Return the orders whose jobs are due, the most overdue first."""
    return [row["order_id"] for row in await tx.fetch(sql.list_due_dispatches, limit)]


async def claim(tx: Transaction, order_id: str, lease: timedelta) -> DispatchJob | None:
    """Claim a job that is due for the length of the lease; return None when it is not due."""
    row = await tx.fetchrow(sql.claim_dispatch, order_id, lease)
    if row is None:
        return None
    shipment = shipment_from_row(row)
    return DispatchJob(order_id=order_id, attempt=row["attempts"], traceparent=row["traceparent"], shipment=shipment)


async def renew(tx: Transaction, job: DispatchJob, lease: timedelta) -> None:
    """Extend a claim by another lease, unless it was lost."""
    await tx.execute(sql.renew_dispatch, job.order_id, job.attempt, lease)


async def postpone(tx: Transaction, job: DispatchJob, pause: timedelta) -> None:
    """End a claim, unless it was lost; the next attempt is due after the pause."""
    await tx.execute(sql.postpone_dispatch, job.order_id, job.attempt, pause)


async def make_due(tx: Transaction, order_id: str) -> None:
    """Make a job that waits for its next attempt due now."""
    await tx.execute(sql.make_dispatch_due, order_id)


async def delete(tx: Transaction, job: DispatchJob) -> bool:
    """Delete a claimed job; return False when the claim was lost."""
    return bool(await tx.fetchval(sql.delete_claimed_dispatch, job.order_id, job.attempt))


async def delete_jobs_of(tx: Transaction, order_id: str) -> None:
    """Delete the job of an order, also one that is claimed: nothing remains to be done."""
    await tx.execute(sql.delete_dispatch, order_id)
