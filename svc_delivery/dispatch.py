"""Submits shipments to the courier, as jobs of `chassis.work.worker`: each is resumed until the courier has answered.

shipment CREATED, with its job -> submitted to the courier: LABELLED, or rejected: FAILED
"""

import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import TypeAlias

from chassis import Transaction, current_time, outbox
from chassis.domain.backoff import backoff
from chassis.external.api import CallResult, Ok, Refused, Unknown
from svc_delivery import converters_shipment as converters
from svc_delivery import domain_shipment, store_dispatch, store_shipment
from svc_delivery.courier import Consignment, Courier
from svc_delivery.domain_shipment import DispatchJob, Shipment, State

log = logging.getLogger(__name__)

_LEASE = timedelta(seconds=10)
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(seconds=1), timedelta(minutes=1)
_REJECTED = "The courier does not take this parcel."
#: The actor of the transitions that the courier reports.
COURIER = "courier"

#: What an attempt ends with: the courier's answer, or None for a shipment that needs no courier any more.
Result: TypeAlias = CallResult[Consignment] | None


class Dispatch:
    """The jobs that submit shipments to the courier: an order has one, until the courier has its parcel or rejects it.

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
        """Submit the shipment to the courier, which creates at most one parcel for each shipment id."""
        shipment = job.shipment
        if shipment.consignment_id or shipment.state is not State.CREATED:
            return None
        return await self._submit_to_courier(shipment, again=job.attempt > 1)

    async def settle(self, tx: Transaction, job: DispatchJob, result: Result) -> DispatchJob | None:
        """Write the courier's answer; an unknown one is looked up by the next attempt, after a pause."""
        match result:
            case Unknown(cause):
                log.warning("courier does not answer", extra={"order": job.order_id, "cause": cause})
                await store_dispatch.postpone(tx, job, backoff(job.attempt, _FIRST_PAUSE, _LONGEST_PAUSE))
            case Ok() | Refused() | None:
                await self._complete(tx, job, result)
        return None

    async def _complete(self, tx: Transaction, job: DispatchJob, result: Ok[Consignment] | Refused | None) -> None:
        # The shipment first, as a webhook locks it: the two never wait for each other.
        before = await store_shipment.lock_shipment(tx, job.shipment.id)
        if not await store_dispatch.delete(tx, job):
            return
        now = await current_time(tx)
        match result:
            case Ok(consignment):
                update = converters.tracking_update_from_consignment(consignment)
                await record(tx, before, domain_shipment.apply_tracking_update(before, update, now), COURIER)
            case Refused(code):
                log.warning("courier rejects shipment", extra={"shipment": before.id, "code": code})
                await record(tx, before, [domain_shipment.reject(before, _REJECTED, now)], COURIER)

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
