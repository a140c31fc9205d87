"""Drives sagas: claim a step, take it, settle its outcome, each claim and settlement in a transaction of its own.

Any process may drive any saga. A claim is a lease that others respect until it is over; it is short, for others to go
on soon after a process died, and renewed while a step takes longer. A driver that lost its lease writes nothing,
because the saga's version has moved on.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import Context as TaskContext
from dataclasses import dataclass
from datetime import datetime, timedelta

from chassis import Database, Transaction, outbox, traced
from svc_order import domain_saga, messages, store
from svc_order.domain import Order, arrived
from svc_order.domain_saga import Done, Outcome, Pending, Refused, Saga, SagaState, Step, Unknown
from svc_order.steps import Steps
from svc_order.store import StepRecord

log = logging.getLogger(__name__)

#: A renewal may be late, or lost, and the next one still in time.
_RENEWALS_IN_A_LEASE = 4
#: Longer than any step may take by its contract.
_LONGEST_STEP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Claim:
    """A step that this process has begun."""

    saga: Saga
    order: Order
    payment_method_token: str


class Driver:
    """Takes sagas from step to step, at once for new orders and by polling for all that others left behind."""

    def __init__(self, db: Database, steps: Steps, *, lease: timedelta, at_once: int) -> None:
        """Drive at most `at_once` sagas that were left behind; a step whose `lease` is over counts as such."""
        self._db = db
        self._steps = steps
        self._lease = lease
        self._at_once = at_once
        self._driving: dict[str, asyncio.Task[None]] = {}
        self._taken_up: set[asyncio.Task[None]] = set()

    async def begin(self, tx: Transaction, saga: Saga, order: Order, payment_method_token: str, now: datetime) -> Claim:
        """Write that this process begins the saga's present step."""
        claimed = saga.claimed(now, self._lease)
        await store.update_saga(tx, claimed)
        if claimed.state is SagaState.RUNNING:
            await store.write_steps(tx, claimed.id, _record(claimed, Pending()))
        return Claim(claimed, order, payment_method_token)

    def start(self, saga_id: str, claim: Claim | None = None) -> asyncio.Task[None]:
        """Drive a saga, from a step already begun if there is one, in a task of its own that no caller's deadline ends.

        Returns the task that drives it, which may be another caller's.
        """
        if (task := self._driving.get(saga_id)) is None:
            task = asyncio.create_task(self._drive(saga_id, claim), context=TaskContext())
            self._driving[saga_id] = task
            task.add_done_callback(lambda _: self._driving.pop(saga_id, None))
        return task

    async def take_up(self) -> bool:
        """Drive some of what is due; returns False, since there is more only once these are driven."""
        if (free := self._at_once - len(self._taken_up)) > 0:
            async with self._db.connection() as tx:
                due = await store.list_due(tx, free)
            for saga_id in due:
                task = self.start(saga_id)
                self._taken_up.add(task)
                task.add_done_callback(self._taken_up.discard)
        return False

    async def close(self) -> None:
        """Let the steps under way come to an end; what remains of their sagas is found by the next process."""
        if self._driving:
            await asyncio.wait(self._driving.values(), timeout=_LONGEST_STEP_SECONDS)

    async def _drive(self, saga_id: str, claim: Claim | None) -> None:
        try:
            claim = claim or await self._begin_due(saga_id)
            while claim is not None:
                with traced(claim.saga.traceparent, f"saga/{claim.saga.step.value}"):
                    async with self._renewing(claim.saga):
                        outcome = await self._steps.take(claim.saga, claim.order, claim.payment_method_token)
                    claim = await self._settle(claim, outcome)
        except Exception:
            # The saga stays claimed until its lease is over, and is then taken up again.
            log.exception("saga interrupted", extra={"saga": saga_id})

    @asynccontextmanager
    async def _renewing(self, claimed: Saga) -> AsyncIterator[None]:
        """Keep a claim while its step is under way."""
        renewing = asyncio.create_task(self._renew(claimed))
        try:
            yield
        finally:
            renewing.cancel()

    async def _renew(self, claimed: Saga) -> None:
        while True:
            await asyncio.sleep(self._lease.total_seconds() / _RENEWALS_IN_A_LEASE)
            try:
                async with self._db.transaction() as tx:
                    await store.renew_claim(tx, claimed, self._lease)
            except Exception as error:  # noqa: BLE001  whatever it is, the next renewal may still be in time
                log.warning("lease not renewed", extra={"saga": claimed.id, "error": repr(error)})

    async def _begin_due(self, saga_id: str) -> Claim | None:
        async with self._db.transaction() as tx:
            due = await store.lock_due_saga(tx, saga_id)
            if due is None:
                return None
            saga, token, now = due
            return await self.begin(tx, saga, await store.read_order(tx, saga.order_id), token, now)

    async def _settle(self, claim: Claim, outcome: Outcome) -> Claim | None:
        """Write what the step's outcome means, and begin the next step where one is due at once."""
        async with self._db.transaction() as tx:
            saga, now = await store.lock_saga(tx, claim.saga.id)
            if saga.version != claim.saga.version:
                return None  # the lease was lost, and with it the right to say anything
            advanced = saga.advanced(outcome, now, random.random())  # noqa: S311  spreads retries
            order = await self._follow(tx, claim.order, advanced, (saga.step, outcome), now)
            await store.write_steps(tx, saga.id, _record(saga, outcome))
            if advanced.active and advanced.next_attempt_time <= now:
                return await self.begin(tx, advanced, order, claim.payment_method_token, now)
            await store.update_saga(tx, advanced)
            return None

    async def _follow(
        self, tx: Transaction, order: Order, saga: Saga, ended: tuple[Step, Outcome], now: datetime
    ) -> Order:
        """Let the order follow its saga; most steps do not concern it, and then it is not even read."""
        if domain_saga.after_step(order, saga, *ended, now) is order:
            return order
        locked = await store.lock_order(tx, order.id)
        followed = await _change(tx, locked, domain_saga.after_step(locked, saga, *ended, now))
        # A parcel that was quicker than its money: the order is shipped and delivered, one after the other.
        return await _change(tx, followed, arrived(followed, now))


async def _change(tx: Transaction, before: Order, after: Order) -> Order:
    """Write what became of a locked order, and tell of it."""
    if after is before:
        return before
    after = await store.update_order(tx, before, after)
    await outbox.add(tx, *messages.changes(before, after))
    return after


def _record(saga: Saga, outcome: Outcome) -> StepRecord:
    """Return what the saga's record says of its present step, once that has this outcome."""
    match outcome:
        case Done():
            state, reason = ("COMPENSATED" if saga.state is SagaState.COMPENSATING else "DONE"), ""
        case Refused(why):
            state, reason = "REFUSED", why
        case Unknown(why):
            state, reason = "UNKNOWN", why
        case Pending():
            state, reason = "RUNNING", ""
    return StepRecord(name=saga.step.value, state=state, attempts=saga.attempts, reason=reason)
