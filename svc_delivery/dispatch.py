"""Submits shipments to the courier, and cancels them there, as jobs of `chassis.work.worker`.

Each job is resumed until the courier has answered:

shipment CREATED, with its job -> submitted to the courier: LABELLED, or rejected: FAILED
cancellation requested, with its job -> cancelled by the courier: CANCELLED, or already picked up: PICKED_UP
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from chassis import Transaction, current_time, outbox
from chassis.domain.backoff import backoff
from chassis.external.api import CallResult, Ok, Refused, Unknown
from svc_delivery import converters_shipment as converters
from svc_delivery import domain_shipment, store_dispatch, store_shipment
from svc_delivery.courier import Consignment, Courier, Status
from svc_delivery.domain_shipment import TRANSITIONS, DispatchJob, Shipment, State

log = logging.getLogger(__name__)

_LEASE = timedelta(seconds=10)
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(seconds=1), timedelta(minutes=1)
_REJECTED = "The courier does not take this parcel."
#: The actor of the transitions that the courier reports.
COURIER = "courier"


@dataclass(frozen=True, slots=True)
class Ended:
    """The reply of the courier to a cancellation: it has this parcel, or none."""

    consignment: Consignment | None


#: What an attempt ends with: the courier's answer, or None for a shipment that needs no courier any more.
Result: TypeAlias = CallResult[Consignment] | Ended | None


class Dispatch:
    """The jobs that submit shipments to the courier or cancel them there: an order has one, until the courier answers.

    Implements `chassis.work.worker.Jobs`.
    """

    def __init__(self, courier: Courier) -> None:
        """Submit shipments to `courier`."""
        self._courier = courier
        self.lease = _LEASE

    async def create_shipment(self, tx: Transaction, shipment: Shipment, actor: str) -> DispatchJob | None:
        """Insert a shipment that `actor` requested, and return its claimed job; None when its id or order has one."""
        if not await store_shipment.insert_shipment(tx, shipment, actor):
            return None
        await outbox.add(tx, converters.shipment_created_event(shipment))
        return await store_dispatch.insert_claimed(tx, shipment, self.lease)

    async def cancel_shipment(self, tx: Transaction, before: Shipment, actor: str, reason: str) -> DispatchJob | None:
        """Record on a locked shipment that it is to be cancelled; return the claimed job unless the order has one.

        Raises ShipmentStateConflict.
        """
        after = before.with_cancellation_requested(actor, reason)
        if after is not before:
            await record(tx, before, [after], actor)
        if not after.is_cancelling:
            return None
        job = await store_dispatch.insert_claimed(tx, after, self.lease)
        if job is None:
            await store_dispatch.make_due(tx, after.order_id)
        return job

    async def list_due(self, tx: Transaction, limit: int) -> Sequence[str]:
        """Return the orders whose next attempt is due, the most overdue first."""
        return await store_dispatch.list_due(tx, limit)

    async def claim(self, tx: Transaction, job_id: str) -> DispatchJob | None:
        """Claim an order's job for the length of the lease; return None when it is not due."""
        return await store_dispatch.claim(tx, job_id, self.lease)

    async def renew(self, tx: Transaction, job: DispatchJob) -> None:
        """Extend the claim by another lease, unless it was lost."""
        await store_dispatch.renew(tx, job, self.lease)

    async def execute(self, job: DispatchJob) -> Result:
        """Submit the shipment to the courier, which creates at most one parcel for each shipment id, or cancel it."""
        shipment = job.shipment
        if shipment.is_cancelling:
            return await self._cancel_at_courier(shipment)
        if shipment.consignment_id or shipment.state is not State.CREATED:
            return None
        return await self._submit_to_courier(shipment, again=job.attempt > 1)

    async def settle(self, tx: Transaction, job: DispatchJob, result: Result) -> DispatchJob | None:
        """Write the courier's answer; an unknown one is looked up by the next attempt, after a pause."""
        match result:
            case Unknown(cause):
                log.warning("courier does not answer", extra={"order": job.order_id, "cause": cause})
                await store_dispatch.postpone(tx, job, backoff(job.attempt, _FIRST_PAUSE, _LONGEST_PAUSE))
                return None
            case Ok() | Refused() | Ended() | None:
                return await self._complete(tx, job, result)

    async def _complete(
        self, tx: Transaction, job: DispatchJob, result: Ok[Consignment] | Refused | Ended | None
    ) -> DispatchJob | None:
        """Write what the courier did; return the next job when the cancellation was requested in between."""
        # The shipment first, as a webhook locks it: the two never wait for each other.
        before = await store_shipment.lock_shipment(tx, job.shipment.id)
        if not await store_dispatch.delete(tx, job):
            return None
        now, actor = await current_time(tx), COURIER
        revisions: Sequence[Shipment] = (before,)
        match result:
            case Ok(consignment):
                update = converters.tracking_update_from_consignment(consignment)
                revisions = domain_shipment.apply_tracking_update(before, update, now) or revisions
            case Refused(code):
                log.warning("courier rejects shipment", extra={"shipment": before.id, "code": code})
                revisions = (domain_shipment.reject(before, _REJECTED, now),)
            case Ended(found):
                ended = converters.tracking_update_from_consignment(found) if found else None
                revisions, actor = domain_shipment.cancel(before, ended, now), before.cancel_actor
        await record(tx, before, revisions, actor)
        after = revisions[-1]
        return await store_dispatch.insert_claimed(tx, after, self.lease) if after.is_cancelling else None

    async def _cancel_at_courier(self, shipment: Shipment) -> Ended | Unknown:
        """Cancel a parcel. One whose submission has no answer yet is submitted first, or it might arrive later."""
        consignment_id = shipment.consignment_id
        if not consignment_id:
            match await self._submit_to_courier(shipment, again=True):
                case Ok(consignment):
                    consignment_id = consignment.id
                case Refused():
                    return Ended(None)
                case Unknown() as unknown:
                    return unknown
        result = await self._courier.cancel(consignment_id)
        if isinstance(result, Refused):  # it may have been picked up: its status decides
            result = await self._courier.get(consignment_id)
        match result:
            case Ok(consignment) if consignment.status is not Status.LABELLED:
                return Ended(consignment)
            case Ok():
                return Unknown("not_cancelled")
            case Refused(code):
                return Unknown(code)
            case _:
                return result

    async def _submit_to_courier(self, shipment: Shipment, *, again: bool) -> CallResult[Consignment]:
        if again:
            match await self._courier.find_by_reference(shipment.id):
                case Ok(consignment) if consignment is not None:
                    return Ok(consignment)
                case Refused(code):  # a search that is refused says nothing about the parcel
                    return Unknown(code)
                case Unknown() as unknown:
                    return unknown
        return await self._courier.create(
            reference=shipment.id,
            address=converters.courier_address(shipment.shipping_address),
            weight_grams=max(1, shipment.weight_grams),
        )


async def record(tx: Transaction, before: Shipment, revisions: Sequence[Shipment], actor: str) -> None:
    """Save and publish the revisions that `actor` has made of a locked shipment."""
    await store_shipment.update_shipment(tx, before, revisions, actor)
    await outbox.add(tx, *converters.shipment_status_changed_events(before, revisions))
    if revisions and TRANSITIONS.is_final(revisions[-1].state):
        await store_dispatch.delete_jobs_of(tx, before.order_id)
