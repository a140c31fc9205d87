"""The engine for durable background work: claim, execute, settle, and resume after a crash.

A job is a row of the service's own with a next attempt time. Each claim and each settlement is a transaction of its
own; between the two, with nothing locked, the job is executed. A claim is a lease: it moves the next attempt time
ahead, so that other processes resume the job only after this one has died. A lease is short, and renewed while needed.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import Context as TaskContext
from datetime import timedelta
from typing import Generic, Protocol, TypeVar

import asyncpg

from chassis.cancellation import cancel_and_wait, cancelled_from_outside
from chassis.metrics import JOBS, work_proceeds, work_waits
from chassis.postgres.database import UNAVAILABLE_ERRORS, Database, Transaction
from chassis.telemetry import traced

log = logging.getLogger(__name__)

#: A renewal may be late, or lost, and the next one still in time.
_RENEWALS_PER_LEASE = 4
#: The longest that one execution may take; the job is then resumed after its lease.
EXECUTION_LIMIT = timedelta(seconds=60)


class Job(Protocol):
    """One claimed attempt at a piece of work."""

    @property
    def id(self) -> str:
        """Return the id of the job."""
        ...

    @property
    def traceparent(self) -> str:
        """Return the trace that the work belongs to, empty for one of its own."""
        ...


J = TypeVar("J", bound=Job)
Result = TypeVar("Result")


class Jobs(Protocol[J, Result]):
    """One kind of work: how its jobs are listed, claimed, executed and settled."""

    @property
    def lease(self) -> timedelta:
        """Return how long a claim protects the job from other processes."""
        ...

    async def list_due(self, tx: Transaction, limit: int) -> Sequence[str]:
        """Lock jobs whose next attempt is due, unless they are locked; return their ids, the most overdue first.

        The worker claims them in the same transaction, so that processes which look at the same time find other jobs.
        """
        ...

    async def claim(self, tx: Transaction, job_id: str) -> J | None:
        """Claim the job for the length of the lease; return None when it is not due or another process has it."""
        ...

    async def renew(self, tx: Transaction, job: J) -> None:
        """Extend the claim by another lease, unless it was lost."""
        ...

    async def execute(self, job: J) -> Result:
        """Do the work, outside of any transaction; the lease is renewed until it ends or the worker's limit cancels it.

        It may run again after a crash or at the limit, so it must be idempotent.
        """
        ...

    async def settle(self, tx: Transaction, job: J, result: Result) -> J | None:
        """Write the result; claim and return the next attempt to execute at once, or None.

        A lost claim writes nothing and returns None. While `tx` is optimistic the claimed job may be taken as it is; a
        row that has changed since is a conflict, after which this is called again to lock and read it.
        """
        ...


class Worker(Generic[J, Result]):
    """Executes jobs: at once those that `start` names, and by polling all that are due."""

    def __init__(
        self, db: Database, jobs: Jobs[J, Result], *, name: str, concurrency: int, limit: timedelta = EXECUTION_LIMIT
    ) -> None:
        """Execute at most `concurrency` resumed jobs at a time, each for at most `limit`.

        `name` is that of the work, for logs and traces.
        """
        self._db = db
        self._jobs = jobs
        self._name = name
        self._settled = JOBS.labels(name, "settled")
        self._interrupted = JOBS.labels(name, "interrupted")
        self._concurrency = concurrency
        self._limit = limit.total_seconds()
        self._running: dict[str, asyncio.Task[None]] = {}
        #: Jobs that were started again while they ran, each with its claim, if the caller had made one.
        self._restarts: dict[str, J | None] = {}
        self._claim_failed = False
        self._resumed: set[asyncio.Task[None]] = set()
        self._woken = asyncio.Event()

    def start(self, job_id: str, claimed: J | None = None) -> asyncio.Task[None]:
        """Execute a job, which the caller may have claimed already, in a task that no caller's deadline ends.

        Return the task that executes it. It may be another caller's, which then executes the job once more at its end:
        the change that made this caller start the job may have committed after the task's last claim.
        """
        task = self._running.get(job_id)
        if task is not None:
            self._restarts[job_id] = claimed or self._restarts.get(job_id)
            return task
        task = asyncio.create_task(self._run_job(job_id, claimed), context=TaskContext())
        self._running[job_id] = task
        return task

    async def join(self, job_id: str) -> bool:
        """Wait until the task that executes the job has ended; return False when this process has none.

        A caller that is cancelled while it waits does not cancel the job.
        """
        task = self._running.get(job_id)
        if task is None:
            return False
        await asyncio.wait([task])
        return True

    def wake(self) -> None:
        """Poll for due jobs now."""
        self._woken.set()

    async def run(self, poll_seconds: float) -> None:
        """Resume due jobs until cancelled, polling every `poll_seconds` and when woken."""
        while True:
            self._woken.clear()
            self._claim_failed = False
            try:
                more = await self._resume_due() and not self._claim_failed
                work_proceeds(self._name)
            except UNAVAILABLE_ERRORS as error:
                work_waits(self._name, type(error).__name__)
                log.warning("work waits for the database", extra={"work": self._name, "error": type(error).__name__})
                more = False
            except Exception as error:
                work_waits(self._name, type(error).__name__)
                log.exception("due work not listed", extra={"work": self._name})
                more = False
            if not more:
                await self._pause(poll_seconds)

    async def close(self, seconds: float) -> None:
        """Wait at most `seconds` for the running jobs; other processes resume the rest after their leases."""
        if self._running:
            await asyncio.wait(self._running.values(), timeout=seconds)

    async def _resume_due(self) -> bool:
        """Start due jobs as far as there is room; return whether there may be more that now have room."""
        room = self._concurrency - len(self._resumed)
        if room <= 0:
            await asyncio.wait(self._resumed, return_when=asyncio.FIRST_COMPLETED)
            return True
        due = await self._claim_due(room)
        for job_id, claimed in due:
            task = self.start(job_id, claimed)
            self._resumed.add(task)
            task.add_done_callback(self._resumed.discard)
        return len(due) == room

    async def _claim_due(self, room: int) -> Sequence[tuple[str, J | None]]:
        """List due jobs and claim them in one transaction; without the claims where one of them fails.

        Each of those is then claimed in a transaction of its own, so that the others are not held up.
        """
        due: Sequence[str] = ()
        try:
            async with self._db.transaction() as tx:
                due = await self._jobs.list_due(tx, room)
                claims = [(job_id, await self._jobs.claim(tx, job_id)) for job_id in due]
            return [(job_id, claimed) for job_id, claimed in claims if claimed is not None]
        except UNAVAILABLE_ERRORS:
            raise
        except (Exception, asyncio.CancelledError):
            if not due or cancelled_from_outside():
                raise
            return [(job_id, None) for job_id in due]

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass

    async def _run_job(self, job_id: str, claimed: J | None) -> None:
        try:
            await self._attempt(job_id, claimed)
            while job_id in self._restarts:
                await self._attempt(job_id, self._restarts.pop(job_id))
        finally:
            self._restarts.pop(job_id, None)
            del self._running[job_id]  # in the step that ends the task: no start may return an ended task

    async def _attempt(self, job_id: str, claimed: J | None) -> None:
        try:
            job = claimed or await self._claim(job_id)
            while job is not None:
                with traced(job.traceparent, self._name):
                    async with self._renewing(job), asyncio.timeout(self._limit):
                        result = await self._jobs.execute(job)
                    job = await self._settle(job, result)
                self._settled.inc()
        except UNAVAILABLE_ERRORS as error:
            # The job stays claimed until its lease expires, and is resumed then.
            self._interrupted.inc()
            log.warning("work interrupted", extra={"work": self._name, "job": job_id, "error": type(error).__name__})
        except (Exception, asyncio.CancelledError):
            if cancelled_from_outside():
                raise
            self._interrupted.inc()
            log.exception("work interrupted", extra={"work": self._name, "job": job_id})

    async def _settle(self, job: J, result: Result) -> J | None:
        with suppress(asyncpg.SerializationError):
            async with self._db.transaction(optimistic=True) as tx:
                return await self._jobs.settle(tx, job, result)
        async with self._db.transaction() as tx:
            return await self._jobs.settle(tx, job, result)

    async def _claim(self, job_id: str) -> J | None:
        try:
            async with self._db.transaction() as tx:
                return await self._jobs.claim(tx, job_id)
        except BaseException:
            self._claim_failed = True  # it stays due: without a pause the worker would claim it again at once
            raise

    @asynccontextmanager
    async def _renewing(self, job: J) -> AsyncIterator[None]:
        """Keep the claim while the job is executed. Most jobs end before the first renewal, and cost only its timer."""
        renewals: list[asyncio.Task[None]] = []
        timer = asyncio.get_running_loop().call_later(
            self._renewal_seconds(), lambda: renewals.append(asyncio.create_task(self._renew(job)))
        )
        try:
            yield
        finally:
            timer.cancel()
            await cancel_and_wait(*renewals)  # a renewal after the settlement would move the next attempt's time

    async def _renew(self, job: J) -> None:
        while True:
            try:
                async with self._db.transaction() as tx:
                    await self._jobs.renew(tx, job)
            except Exception as error:  # noqa: BLE001  the next renewal may still be in time
                log.warning("lease not renewed", extra={"work": self._name, "job": job.id, "error": repr(error)})
            await asyncio.sleep(self._renewal_seconds())

    def _renewal_seconds(self) -> float:
        return self._jobs.lease.total_seconds() / _RENEWALS_PER_LEASE
