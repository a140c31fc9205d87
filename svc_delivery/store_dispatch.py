"""Reads and writes the jobs that submit shipments to the courier: the rows of `dispatch`."""

from collections.abc import Sequence
from datetime import timedelta

from chassis import Record, Transaction, current_call
from svc_delivery.domain_shipment import DispatchJob, Shipment
from svc_delivery.store import sql
from svc_delivery.store_shipment import shipment_from_row


async def insert_reservation(tx: Transaction, order_id: str, actor: str, lease: timedelta) -> None:
    """Write the job of an order that is about to be reserved, due after the lease; leave one that exists."""
    await tx.execute(sql.insert_dispatch, order_id, actor, _traceparent(), lease)


async def insert_claimed(tx: Transaction, shipment: Shipment, actor: str, lease: timedelta) -> DispatchJob:
    """Write the job of a new shipment, claimed; take over one that reserved its order."""
    traceparent = _traceparent()
    attempt = await tx.fetchval(sql.insert_claimed_dispatch, shipment.order_id, actor, traceparent, lease)
    return DispatchJob(
        order_id=shipment.order_id, actor=actor, attempt=attempt, traceparent=traceparent, shipment=shipment
    )


async def list_due(tx: Transaction, limit: int) -> Sequence[str]:
    """Return the orders whose jobs are due, the most overdue first."""
    return [row["order_id"] for row in await tx.fetch(sql.list_due_dispatches, limit)]


async def claim(tx: Transaction, order_id: str, lease: timedelta) -> DispatchJob | None:
    """Claim a job that is due for the length of the lease; return None when it is not due."""
    row = await tx.fetchrow(sql.claim_dispatch, order_id, lease)
    return _job_from_rows(row, await tx.fetchrow(sql.read_shipment_of_order, order_id)) if row else None


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


def _traceparent() -> str:
    call = current_call()
    return call.traceparent if call else ""


def _job_from_rows(row: Record, shipment: Record | None) -> DispatchJob:
    return DispatchJob(
        order_id=row["order_id"],
        actor=row["actor"],
        attempt=row["attempts"],
        traceparent=row["traceparent"],
        shipment=shipment_from_row(shipment) if shipment else None,
    )
