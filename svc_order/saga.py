"""Drives sagas: claim a step, take it, settle its outcome, each claim and settlement in a transaction of its own.

Any process may drive any saga. A claim is a lease that others respect until it is over, and a driver that lost its
lease writes nothing, because the saga's version has moved on.
"""

import asyncio
import logging
import random
from contextvars import Context as TaskContext
from dataclasses import dataclass
from datetime import timedelta

import asyncpg

from chassis import Database, Transaction, outbox, traced
from svc_order import domain_saga, messages, store
from svc_order.domain import Order
from svc_order.domain_saga import Done, Outcome, Pending, Refused, Saga, SagaState, Unknown
from svc_order.steps import Steps

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Claim:
    """A step that this process has begun."""

    saga: Saga
    order: Order
    payment_method_token: str


class Driver:
    """Takes sagas from step to step, at once for new orders and by polling for all that others left behind."""

    def __init__(self, db: Database, steps: Steps, *, lease: timedelta, at_once: int) -> None:
        """Drive at most `at_once` sagas that were left behind; a step not settled within `lease` counts as such."""
        self._db = db
        self._steps = steps
        self._lease = lease
        self._at_once = at_once
        self._driving: dict[str, asyncio.Task[None]] = {}

    def start(self, saga_id: str) -> asyncio.Task[None]:
        """Drive a saga in a task of its own, which no caller's deadline ends; the same task when it is being driven."""
        if (task := self._driving.get(saga_id)) is None:
            task = asyncio.create_task(self._drive(saga_id), context=TaskContext())
            self._driving[saga_id] = task
            task.add_done_callback(lambda _: self._driving.pop(saga_id, None))
        return task

    async def poll(self, pause: float) -> None:
        """Drive what is due, looking every `pause` seconds, until cancelled."""
        while True:
            try:
                if free := self._at_once - len(self._driving):
                    async with self._db.connection() as tx:
                        due = await store.list_due(tx, max(free, 1))
                    for saga_id in due:
                        self.start(saga_id)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                log.warning("sagas wait for the database", exc_info=True)
            await asyncio.sleep(pause)

    async def close(self) -> None:
        """Let the steps under way come to an end; what remains of their sagas is found by the next process."""
        if self._driving:
            await asyncio.wait(self._driving.values(), timeout=self._lease.total_seconds())

    async def _drive(self, saga_id: str) -> None:
        try:
            claim = await self._begin(saga_id)
            while claim is not None:
                with traced(claim.saga.traceparent, f"saga/{claim.saga.step.value}"):
                    outcome = await self._steps.take(claim.saga, claim.order, claim.payment_method_token)
                    claim = await self._settle(claim, outcome)
        except Exception:
            # The saga stays claimed until its lease is over, and is then taken up again.
            log.exception("saga interrupted", extra={"saga": saga_id})

    async def _begin(self, saga_id: str) -> _Claim | None:
        async with self._db.transaction() as tx:
            due = await store.lock_due_saga(tx, saga_id)
            if due is None:
                return None
            saga, token = due
            return await self._claim(tx, saga, await store.read_order(tx, saga.order_id), token)

    async def _claim(self, tx: Transaction, saga: Saga, order: Order, token: str) -> _Claim:
        claimed = saga.claimed(await store.read_now(tx), self._lease)
        await store.update_saga(tx, claimed)
        if claimed.state is SagaState.RUNNING:
            await store.write_step(tx, claimed, "RUNNING")
        return _Claim(claimed, order, token)

    async def _settle(self, claim: _Claim, outcome: Outcome) -> _Claim | None:
        """Write what the step's outcome means, and begin the next step where one is due at once."""
        async with self._db.transaction() as tx:
            saga = await store.lock_saga(tx, claim.saga.id)
            wish = saga.cancel_reason != claim.saga.cancel_reason
            if saga.version != claim.saga.version + wish:
                return None  # the lease was lost, and with it the right to say anything
            now = await store.read_now(tx)
            advanced = saga.advanced(outcome, now, random.random())  # noqa: S311  spreads retries
            await store.write_step(tx, saga, *_record(saga, outcome))
            before = await store.lock_order(tx, saga.order_id)
            after = domain_saga.after_step(before, advanced, saga.step, outcome, now)
            after = await store.update_order(tx, before, after)
            await outbox.add(tx, *messages.changes(before, after))
            if advanced.state in (SagaState.RUNNING, SagaState.COMPENSATING) and advanced.next_attempt_time <= now:
                return await self._claim(tx, advanced, after, claim.payment_method_token)
            await store.update_saga(tx, advanced)
            return None


def _record(saga: Saga, outcome: Outcome) -> tuple[str, str]:
    """Return what the saga's record of steps says of an outcome, and why."""
    match outcome:
        case Done():
            return ("COMPENSATED" if saga.state is SagaState.COMPENSATING else "DONE"), ""
        case Refused(reason):
            return "REFUSED", reason
        case Unknown(reason):
            return "UNKNOWN", reason
        case Pending():
            return "RUNNING", ""
