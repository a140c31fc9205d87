"""Executes sagas, as jobs of chassis.work.worker: what a step's result makes of saga and order.

A process that lost its lease writes nothing, because the saga's version has moved on.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from chassis import Transaction, current_time, outbox
from svc_order import converters, domain_progress, store
from svc_order.domain import Order, deliver_if_arrived
from svc_order.domain_saga import Saga, SagaState, Waits
from svc_order.domain_steps import Done, Pending, Step, StepResult
from svc_order.returns import open_parcel_return
from svc_order.steps import Claim, Steps


class SagaOrchestrator:
    """Claims and settles the steps of sagas."""

    def __init__(self, steps: Steps, *, lease: timedelta, waits: Waits) -> None:
        """Claim a step for `lease` at a time; `waits` bounds how long an order waits for others."""
        self.lease = lease
        self._steps = steps
        self._waits = waits

    async def list_due(self, tx: Transaction, limit: int) -> Sequence[str]:
        """Return the ids of sagas whose next attempt is due, the most overdue first."""
        return await store.list_due_sagas(tx, limit)

    async def claim(self, tx: Transaction, job_id: str) -> Claim | None:
        """Begin the current step of a saga; return None when it is not due or another process has it."""
        due = await store.lock_due_saga(tx, job_id)
        if due is None:
            return None
        saga, token, now = due
        claim = self.begin(Claim(saga, await store.read_order(tx, saga.order_id), token), now)
        await store.update_saga(tx, claim.saga)
        await store.write_steps(tx, *_begun(claim))
        return claim

    def begin(self, job: Claim, now: datetime) -> Claim:
        """Return the claim of an attempt at the current step of a saga, which the caller writes."""
        return replace(job, saga=job.saga.claimed(now, self.lease))

    async def renew(self, tx: Transaction, job: Claim) -> None:
        """Extend the lease, unless it was lost."""
        await store.renew_saga(tx, job.saga, self.lease)

    async def execute(self, job: Claim) -> StepResult:
        """Do or undo the saga's current step."""
        return await self._steps.execute(job)

    async def settle(self, tx: Transaction, job: Claim, result: StepResult) -> Claim | None:
        """Write the result of a step, and begin the next one when it is due at once."""
        saga, now = await _current(tx, job)
        if saga.version != job.saga.version:
            return None  # another process has resumed the saga
        advanced = saga.advanced(result, now, random.random(), self._waits)  # noqa: S311  spreads repeats
        ended = [(saga, result)]
        while advanced.state is SagaState.RUNNING and advanced.step is Step.BOOK_SLOT and not job.order.slot_id:
            ended.append((advanced, Done()))  # the courier chooses the day
            advanced = advanced.advanced(Done(), now, 0.0)
        is_due = advanced.is_active and advanced.next_attempt_time <= now
        claim = self.begin(replace(job, saga=advanced), now) if is_due else None
        await store.update_saga(tx, claim.saga if claim else advanced, saga)
        await store.write_steps(tx, *ended, *(_begun(claim) if claim else ()))
        order = await _follow(tx, job.order, advanced, (saga.step, result), now)
        return replace(claim, order=order) if claim else None


async def _current(tx: Transaction, job: Claim) -> tuple[Saga, datetime]:
    """Return the saga as it was claimed, or locked and read after a conflict, and the time."""
    if tx.optimistic:
        return job.saga, await current_time(tx)
    return await store.lock_saga(tx, job.saga.id)


def _begun(claim: Claim) -> list[tuple[Saga, StepResult]]:
    return [(claim.saga, Pending())] if claim.saga.state is SagaState.RUNNING else []


async def _follow(tx: Transaction, order: Order, saga: Saga, ended: tuple[Step, StepResult], now: datetime) -> Order:
    """Return the order after a step; most steps do not change it, and then it is not even read."""
    if domain_progress.after_step(order, saga, *ended, now) is order:
        return order
    before = order if tx.optimistic else await store.lock_order(tx, order.id)
    return await save_progress(tx, before, domain_progress.after_step(before, saga, *ended, now), now)


async def save_progress(tx: Transaction, before: Order, after: Order, now: datetime) -> Order:
    """Write an order that was locked as it is after a step, and return it as far as its parcel has brought it."""
    changed = await _save(tx, before, after)
    # A parcel may arrive, or come back, before its payment is captured: the order is SHIPPED first, and then goes on.
    return await open_parcel_return(tx, await _save(tx, changed, deliver_if_arrived(changed, now)), now)


async def _save(tx: Transaction, before: Order, after: Order) -> Order:
    saved = await store.update_order(tx, before, after)
    await outbox.add(tx, *converters.order_changed_events(before, saved))
    return saved
