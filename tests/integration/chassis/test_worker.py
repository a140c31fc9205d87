"""The worker: each job is executed under a lease, settled once, and resumed by another process after a crash."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import product

import asyncpg
import pytest

from chassis import Database, current_call
from chassis.cancellation import cancel_and_wait
from chassis.context import Call, enter_call
from chassis.testing import eventually
from chassis.work.worker import Worker

TRACE = f"00-{'a1' * 16}-{'b2' * 8}-01"
FAR = 3600.0

CREATE = """
CREATE TABLE job (
    id text PRIMARY KEY,
    steps int NOT NULL DEFAULT 0,
    claims int NOT NULL DEFAULT 0,
    renewals int NOT NULL DEFAULT 0,
    attempt_time timestamptz DEFAULT now()
)"""
DUE = """
SELECT id FROM job WHERE attempt_time <= now() ORDER BY attempt_time LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED"""
CLAIM = """
UPDATE job SET attempt_time = now() + $2, claims = claims + 1 WHERE id = $1 AND attempt_time <= now()
RETURNING claims"""
#: What a handler does that claims the job in the transaction which creates it.
INSERT_CLAIMED = "INSERT INTO job (id, claims, attempt_time) VALUES ($1, 1, now() + interval '1 hour')"
RENEW = "UPDATE job SET attempt_time = now() + $3, renewals = renewals + 1 WHERE id = $1 AND claims = $2"
SETTLE = """
UPDATE job SET steps = steps + 1, claims = claims + 1,
    attempt_time = CASE WHEN steps + 1 = $3 THEN NULL ELSE now() + $4 END
WHERE id = $1 AND claims = $2 RETURNING claims, attempt_time IS NULL AS done"""


@dataclass(frozen=True)
class Step:
    id: str
    claims: int
    traceparent: str = TRACE


class Jobs:
    """Jobs of `steps` steps. A test may hold their execution at a gate, or break a step of the protocol."""

    def __init__(self, database, lease=FAR, steps=1):
        self.database = database
        self.lease = timedelta(seconds=lease)
        self.steps = steps
        self.gate = asyncio.Event()
        self.gate.set()
        self.executed = []
        self.executing = 0
        self.most_executing = 0
        self.break_at = {}
        self.broken = []
        self.calls = []

    async def list_due(self, tx, limit):
        self._break("list_due")
        return [row["id"] for row in await tx.fetch(DUE, limit)]

    async def claim(self, tx, job_id):
        self._break("claim")
        claims = await tx.fetchval(CLAIM, job_id, self.lease)
        return Step(job_id, claims) if claims else None

    async def renew(self, tx, job):
        self._break("renew")
        await tx.execute(RENEW, job.id, job.claims, self.lease)

    async def execute(self, job):
        self.executed.append(job.id)
        self.calls.append(current_call())
        self.executing += 1
        self.most_executing = max(self.executing, self.most_executing)
        try:
            await self.gate.wait()
            self._break("execute")
            return f"result of {job.id}"
        finally:
            self.executing -= 1

    async def settle(self, tx, job, result):
        self._break("settle")
        assert result == f"result of {job.id}"
        row = await tx.fetchrow(SETTLE, job.id, job.claims, self.steps, self.lease)
        return None if row is None or row["done"] else replace(job, claims=row["claims"])

    def _break(self, at):
        if at in self.break_at:
            self.broken.append(at)
            raise self.break_at[at]


@pytest.fixture
async def database(database):
    await database.pool.execute(CREATE)
    return database


async def add(database, *ids):
    await database.pool.executemany("INSERT INTO job (id) VALUES ($1)", [(job_id,) for job_id in ids])


async def job(database, job_id="a"):
    return await database.pool.fetchrow("SELECT * FROM job WHERE id = $1", job_id)


async def done(database, *ids):
    rows = "SELECT count(*) FROM job WHERE attempt_time IS NULL AND id = ANY($1)"
    return await database.pool.fetchval(rows, list(ids)) == len(ids)


@asynccontextmanager
async def running(database, jobs, *, concurrency=10, poll=0.02):
    """Run a worker; at the end stop it at once, as a kill would, whatever it is doing."""
    worker = Worker(database, jobs, name="job", concurrency=concurrency)
    task = asyncio.create_task(worker.run(poll))
    try:
        yield worker
    finally:
        await cancel_and_wait(task)
        await kill(worker)


async def kill(worker):
    """End the jobs that run where they are, as a crash of the process does."""
    await cancel_and_wait(*worker._running.values())


async def test_due_jobs_are_executed_and_settled_once(database):
    jobs = Jobs(database)
    ids = [f"job-{number}" for number in range(30)]
    await add(database, *ids)
    async with running(database, jobs, concurrency=4):
        await eventually(lambda: done(database, *ids))
    assert sorted(jobs.executed) == sorted(ids)


async def test_two_workers_share_the_jobs_and_execute_none_twice(database, database_url):
    ids = [f"job-{number}" for number in range(40)]
    await add(database, *ids)
    async with Database.open(database_url, 5) as other_database:
        one, other = Jobs(database), Jobs(other_database)
        async with running(database, one, concurrency=3), running(other_database, other, concurrency=3):
            await eventually(lambda: done(database, *ids))
    assert sorted(one.executed + other.executed) == sorted(ids)


async def test_the_steps_of_a_job_follow_each_other_without_a_poll(database):
    jobs = Jobs(database, steps=5)
    await add(database, "a")
    async with running(database, jobs, poll=FAR):
        await eventually(lambda: done(database, "a"))
    assert jobs.executed == ["a"] * 5


@pytest.mark.parametrize("crash", ["claimed", "executing", "executed"])
async def test_a_job_left_by_a_crash_is_resumed_by_another_worker_after_the_lease(database, crash):
    crashed = Jobs(database, lease=0.5)
    await add(database, "a")
    match crash:
        case "claimed":
            async with database.transaction() as tx:
                assert await crashed.claim(tx, "a")
        case "executing":
            crashed.gate.clear()
            async with running(database, crashed):
                await eventually(lambda: crashed.executed)
        case "executed":
            crashed.break_at["settle"] = ConnectionResetError()
            async with running(database, crashed, poll=FAR):
                await eventually(lambda: crashed.executed)
    assert (await job(database))["steps"] == 0
    resumed = Jobs(database)
    async with running(database, resumed):
        await eventually(lambda: done(database, "a"))
    assert resumed.executed == ["a"]


async def test_a_claimed_job_is_left_alone_while_its_lease_lasts(database):
    jobs, other = Jobs(database), Jobs(database)
    jobs.gate.clear()
    await add(database, "a", "b")
    async with running(database, jobs, poll=FAR):
        await eventually(lambda: jobs.executing == 2)
        await add(database, "c")
        async with running(database, other):
            await eventually(lambda: done(database, "c"))
        assert other.executed == ["c"]
        assert await other_claim(database, other) is None


async def other_claim(database, jobs):
    async with database.transaction() as tx:
        return await jobs.claim(tx, "a")


async def test_a_worker_that_lost_its_claim_writes_nothing(database):
    """One that was stopped for longer than its lease, while another executed the job."""
    slow = Jobs(database)
    slow.gate.clear()
    await add(database, "a")
    async with running(database, slow, poll=FAR) as worker:
        await eventually(lambda: slow.executing)
        await database.pool.execute("UPDATE job SET attempt_time = now()")
        async with running(database, Jobs(database, steps=2), poll=FAR):
            await eventually(lambda: has_steps(database, 2))
        slow.gate.set()
        await worker.close(30)
    assert (await job(database))["steps"] == 2


async def has_steps(database, steps):
    return (await job(database))["steps"] == steps


async def test_a_lease_is_renewed_for_as_long_as_the_job_is_executed(database):
    jobs, other = Jobs(database, lease=1.0), Jobs(database, lease=1.0)
    jobs.gate.clear()
    other.gate = jobs.gate  # either may be the first to claim
    await add(database, "a")
    async with running(database, jobs), running(database, other):
        await eventually(lambda: jobs.executed or other.executed)
        await eventually(lambda: has_renewals(database, 12))  # three leases long
        assert len(jobs.executed) + len(other.executed) == 1
        jobs.gate.set()
        await eventually(lambda: done(database, "a"))


async def has_renewals(database, least):
    return (await job(database))["renewals"] >= least


async def test_a_failed_renewal_is_repeated(database):
    jobs = Jobs(database, lease=0.4)
    jobs.gate.clear()
    jobs.break_at["renew"] = asyncpg.DeadlockDetectedError("x")
    await add(database, "a")
    async with running(database, jobs, poll=FAR):
        await eventually(lambda: jobs.broken)
        jobs.break_at.clear()
        await eventually(lambda: has_renewals(database, 1))


async def test_no_renewal_moves_the_time_that_the_settlement_set(database, monkeypatch):
    """Not even one that is under way, and whose task loses its cancellation."""
    jobs = Jobs(database, lease=0.2)
    renewing, leave = asyncio.Event(), asyncio.Event()

    async def renew(tx, renewed):
        renewing.set()
        try:
            await leave.wait()
        except asyncio.CancelledError:
            await leave.wait()

    async def settle(tx, settled, result):
        assert leave.is_set(), "settled while a renewal was under way"
        return await Jobs.settle(jobs, tx, settled, result)

    jobs.renew, jobs.settle = renew, settle
    jobs.gate.clear()
    await add(database, "a")
    async with running(database, jobs, poll=FAR):
        await renewing.wait()
        jobs.gate.set()
        await eventually(lambda: jobs.executed and not jobs.executing)
        asyncio.get_running_loop().call_later(0.05, leave.set)
        await eventually(lambda: done(database, "a"))


async def test_joining_a_job_waits_for_its_end_and_a_cancelled_caller_does_not_cancel_it(database):
    jobs = Jobs(database)
    jobs.gate.clear()
    await add(database, "a")
    async with running(database, jobs, poll=FAR) as worker:
        assert not await worker.join("b")
        await eventually(lambda: jobs.executing)
        cancelled, joined = asyncio.create_task(worker.join("a")), asyncio.create_task(worker.join("a"))
        await asyncio.sleep(0)
        await cancel_and_wait(cancelled)
        assert not joined.done()
        jobs.gate.set()
        assert await joined
        assert await done(database, "a")
        assert not await worker.join("a")


async def test_a_woken_worker_polls_at_once(database):
    jobs = Jobs(database)
    async with running(database, jobs, poll=FAR) as worker:
        await add(database, "first")
        worker.wake()
        await eventually(lambda: done(database, "first"))
        await add(database, "second")
        worker.wake()
        await eventually(lambda: done(database, "second"))


async def test_a_wake_during_a_poll_is_not_lost(database):
    jobs = Jobs(database)
    looked = []

    async def list_due(tx, limit):
        due = await Jobs.list_due(jobs, tx, limit)
        if not looked:
            looked.append(True)
            await add(database, "a")  # after the worker has looked
            worker.wake()
        return due

    jobs.list_due = list_due
    async with running(database, jobs, poll=FAR) as worker:
        await eventually(lambda: done(database, "a"))


async def test_no_more_jobs_are_resumed_than_the_concurrency_allows(database):
    jobs = Jobs(database)
    ids = [f"job-{number}" for number in range(20)]
    await add(database, *ids)
    jobs.gate.clear()
    async with running(database, jobs, concurrency=3, poll=0.01):
        await eventually(lambda: jobs.executing == 3)
        jobs.gate.set()
        await eventually(lambda: done(database, *ids))
    assert jobs.most_executing == 3


async def test_a_started_job_is_executed_at_once_although_the_worker_is_full(database):
    jobs = Jobs(database)
    jobs.gate.clear()
    await add(database, "a")
    async with running(database, jobs, concurrency=1, poll=FAR) as worker:
        await eventually(lambda: jobs.executing == 1)
        await database.pool.execute(INSERT_CLAIMED, "mine")
        task = worker.start("mine", Step("mine", 1))
        await eventually(lambda: jobs.executing == 2)
        jobs.gate.set()
        await task
        assert await done(database, "mine")


async def test_a_started_job_belongs_to_its_trace_and_not_to_the_call_that_started_it(database):
    jobs = Jobs(database)
    await add(database, "a")
    enter_call(Call(method="/x", authorization="Bearer x", deadline=0.0))
    try:
        await Worker(database, jobs, name="the job", concurrency=1).start("a")
    finally:
        enter_call(None)
    (call,) = jobs.calls
    assert (call.method, call.traceparent, call.authorization, call.deadline) == ("the job", TRACE, "", None)


async def test_callers_that_start_one_job_share_its_task(database):
    jobs = Jobs(database)
    jobs.gate.clear()
    await add(database, "a")
    worker = Worker(database, jobs, name="job", concurrency=1)
    tasks = {worker.start("a") for _ in range(20)}
    assert len(tasks) == 1
    jobs.gate.set()
    await asyncio.wait(tasks)
    assert jobs.executed == ["a"]


async def test_a_job_that_becomes_due_while_its_last_attempt_ends_is_executed_again(database):
    """Whose caller starts it after the settlement has committed, and before the task has ended."""
    jobs = Jobs(database)
    await add(database, "a")
    worker = Worker(database, jobs, name="job", concurrency=1)

    async def settle(tx, settled, result):
        next_step = await Jobs.settle(jobs, tx, settled, result)
        database.on_commit(tx, due_again)
        return next_step

    def due_again():
        if len(jobs.executed) == 1:
            restarts.append(asyncio.create_task(restart()))

    async def restart():
        worker.start("a", Step("a", 7))

    restarts = []
    jobs.settle = settle
    await worker.start("a")
    assert jobs.executed == ["a", "a"]


@pytest.mark.parametrize(
    ("step", "error"),
    [
        *product(["list_due", "claim", "execute", "settle"], [ConnectionResetError(), ValueError("x")]),
        *product(["claim", "execute", "settle"], [asyncpg.DeadlockDetectedError("x"), asyncio.CancelledError()]),
    ],
)
async def test_a_failure_at_any_step_delays_the_job_and_ends_nothing(database, step, error):
    jobs = Jobs(database, lease=0.2)
    jobs.break_at[step] = error
    await add(database, "a", "b")
    async with running(database, jobs):
        await eventually(lambda: len(jobs.broken) >= 2)
        jobs.break_at.clear()
        await eventually(lambda: done(database, "a", "b"))


async def test_an_execution_that_does_not_end_is_cancelled_at_the_limit_and_resumed_after_its_lease(database):
    stuck = Jobs(database, lease=0.2)
    stuck.gate.clear()
    await add(database, "a")
    worker = Worker(database, stuck, name="job", concurrency=1, limit=timedelta(seconds=0.1))
    async with asyncio.timeout(30):
        await worker.start("a")
    assert (stuck.executed, stuck.executing) == (["a"], 0)
    async with running(database, Jobs(database)):
        await eventually(lambda: done(database, "a"))


async def test_a_cancellation_that_leaks_out_of_a_job_does_not_reach_its_callers(database):
    jobs = Jobs(database)
    jobs.break_at["execute"] = asyncio.CancelledError()
    await add(database, "a")
    await Worker(database, jobs, name="job", concurrency=1).start("a")
    assert jobs.broken == ["execute"]


async def test_workers_that_look_at_the_same_time_claim_different_jobs(database):
    await add(database, "a", "b")
    first, second = Jobs(database), Jobs(database)
    listed, go_on = asyncio.Event(), asyncio.Event()
    claim = first.claim

    async def held_claim(tx, job_id):
        listed.set()
        await go_on.wait()
        return await claim(tx, job_id)

    first.claim = held_claim
    async with running(database, first, concurrency=1):
        await listed.wait()
        async with running(database, second, concurrency=1):
            await eventually(lambda: second.executed)
            go_on.set()
            await eventually(lambda: done(database, "a", "b"))
    assert {tuple(first.executed), tuple(second.executed)} == {("a",), ("b",)}


async def test_a_job_whose_claim_fails_does_not_hold_up_the_others(database):
    await add(database, "a", "b", "c")
    jobs = Jobs(database)
    claim = jobs.claim

    async def claim_but_b(tx, job_id):
        if job_id == "b":
            await tx.execute("SELECT 1 / 0")
        return await claim(tx, job_id)

    jobs.claim = claim_but_b
    async with running(database, jobs):
        await eventually(lambda: done(database, "a", "c"))
    assert (await job(database, "b"))["claims"] == 0


async def test_a_job_that_cannot_be_claimed_is_not_claimed_again_without_a_pause(database):
    jobs = Jobs(database)
    claims = []

    async def claim(tx, job_id):
        claims.append(job_id)
        raise ValueError("x")

    jobs.claim = claim
    await add(database, "a")
    async with running(database, jobs, concurrency=1, poll=FAR) as worker:
        await eventually(lambda: len(claims) == 2)  # with all that are due, and alone
        worker.wake()
        await eventually(lambda: len(claims) == 4)
        await pass_time(database)
        assert len(claims) == 4


async def pass_time(database):
    """Long enough for a worker that does not pause to do it all several times."""
    for _ in range(50):
        await database.pool.fetchval("SELECT 1")


async def test_a_database_without_connections_delays_the_jobs(database_url, database, monkeypatch, log):
    monkeypatch.setattr("chassis.postgres.database._ACQUIRE_SECONDS", 0.05)
    await add(database, "a")
    async with Database.open(database_url, connections=1) as small:
        jobs = Jobs(small)
        async with small.connection(), running(small, jobs):
            await eventually(lambda: "work waits for the database" in log.text)
            assert jobs.executed == []
        async with running(small, jobs):
            await eventually(lambda: done(database, "a"))


async def test_close_waits_for_the_jobs_that_run(database):
    jobs = Jobs(database)
    jobs.gate.clear()
    await add(database, "a")
    worker = Worker(database, jobs, name="job", concurrency=1)
    worker.start("a")
    await eventually(lambda: jobs.executing)
    closing = asyncio.create_task(worker.close(30))
    await pass_time(database)
    assert not closing.done()
    jobs.gate.set()
    await closing
    assert await done(database, "a")


async def test_close_waits_no_longer_than_it_may(database):
    jobs = Jobs(database)
    jobs.gate.clear()
    await add(database, "a")
    worker = Worker(database, jobs, name="job", concurrency=1)
    worker.start("a")
    await eventually(lambda: jobs.executing)
    async with asyncio.timeout(10):
        await worker.close(0.05)
    await kill(worker)


async def test_close_without_jobs_returns_at_once(database):
    await Worker(database, Jobs(database), name="job", concurrency=1).close(FAR)
