"""The database: transactions that commit or roll back under any cancellation, and a pool that never leaks."""

import asyncio
import random
import time
from contextlib import suppress

import asyncpg
import pytest

from chassis import Database
from chassis.cancellation import run_shielded
from chassis.context import Call, enter_call
from chassis.postgres.database import UNAVAILABLE_ERRORS, Overloaded
from chassis.testing import eventually

INSERT = "INSERT INTO note (id) VALUES ($1)"


async def ids(database):
    return {row["id"] for row in await database.pool.fetch("SELECT id FROM note")}


async def test_a_transaction_commits_at_its_end(database):
    async with database.transaction() as tx:
        await tx.execute(INSERT, "a")
        assert await ids(database) == set()
    assert await ids(database) == {"a"}


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, KeyboardInterrupt])
async def test_an_error_rolls_back_and_is_raised(database, error):
    async def fail():
        async with database.transaction() as tx:
            await tx.execute(INSERT, "a")
            raise error

    with pytest.raises(error):
        await fail()
    assert await ids(database) == set()


async def test_an_error_of_the_database_rolls_back_too(database):
    async def repeat():
        async with database.transaction() as tx:
            await tx.execute(INSERT, "a")
            await tx.execute(INSERT, "a")

    with pytest.raises(asyncpg.UniqueViolationError):
        await repeat()
    assert await ids(database) == set()


@pytest.fixture
def called(database):
    """The callbacks that were called."""
    called = []
    database.after_every_commit(lambda: called.append("every"))
    return called


async def test_callbacks_are_called_after_the_commit(database, called):
    seen = []

    async def look():
        seen.append(await ids(database))

    async with database.transaction() as tx:
        await tx.execute(INSERT, "a")
        database.on_commit(tx, lambda: called.append("own"))
        database.on_commit(tx, lambda: called.append(asyncio.create_task(look())))
        assert called == []
    await called[-1]
    assert called[:-1] == ["every", "own"]
    assert seen == [{"a"}]
    async with database.transaction() as tx:
        database.on_commit(tx, lambda: called.append("own"))
    assert called[3:] == ["own"], "nothing was written"


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError])
async def test_callbacks_of_a_transaction_that_rolls_back_are_not_called(database, called, error):
    async def fail():
        async with database.transaction() as tx:
            database.on_commit(tx, lambda: called.append("own"))
            raise error

    with pytest.raises(error):
        await fail()
    assert called == []


async def test_callbacks_of_a_commit_that_fails_are_not_called(database, called):
    await database.pool.execute(
        "ALTER TABLE note ADD CONSTRAINT late FOREIGN KEY (body) REFERENCES note DEFERRABLE INITIALLY DEFERRED"
    )

    async def fail():
        async with database.transaction() as tx:
            await tx.execute("INSERT INTO note VALUES ('a', 'absent')")
            database.on_commit(tx, lambda: called.append("own"))

    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await fail()
    assert called == []


async def test_callbacks_of_one_transaction_are_not_called_by_another(database, called):
    async with database.transaction() as tx:
        database.on_commit(tx, lambda: called.append("own"))
        async with database.transaction() as other:
            await other.execute(INSERT, "a")
        assert called == ["every"]


async def test_a_callback_that_fails_fails_neither_the_committed_transaction_nor_the_other_callbacks(
    database, called, log
):
    async with database.transaction() as tx:
        await tx.execute(INSERT, "a")
        database.on_commit(tx, lambda: 1 / 0)
        database.on_commit(tx, lambda: called.append("own"))
    assert called == ["every", "own"]
    assert "ZeroDivisionError" in log.text


async def test_a_transaction_cancelled_at_any_time_commits_or_rolls_back_and_leaks_nothing(database):
    """Without the shield, 45 of 50 cancelled transactions had committed."""
    chance = random.Random(7)
    told = {}

    async def write(number):
        async with database.transaction() as tx:
            await tx.execute(INSERT, str(number))
        told[number] = "done"

    for number in range(400):
        task = asyncio.create_task(write(number))
        # On a quick machine and on a busy one some of these are too short and some are long enough.
        await asyncio.wait([task], timeout=10 ** chance.uniform(-5, -1))
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            told.setdefault(number, "unknown")
    stored = await ids(database)
    done = {str(number) for number, outcome in told.items() if outcome == "done"}
    assert done <= stored
    assert len(told) == 400
    assert 0 < len(done) < 400, "both outcomes were met"
    await assert_whole(database)


async def test_a_cancelled_commit_is_waited_for(database):
    """So that a caller that is cancelled never sees its own write appear later."""
    await database.pool.execute(
        """CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NULL; END $$"""
    )
    await database.pool.execute(
        """CREATE CONSTRAINT TRIGGER slow_commit AFTER INSERT ON note
           DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION dawdle()"""
    )
    committing = asyncio.Event()
    called = []

    async def write():
        async with database.transaction() as tx:
            await tx.execute(INSERT, "a")
            database.on_commit(tx, lambda: called.append("own"))
            committing.set()

    async with database.transaction() as other:
        await other.execute("SELECT pg_advisory_xact_lock(7)")
        task = asyncio.create_task(write())
        await committing.wait()
        await asyncio.sleep(0)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.01)
        assert not task.done()
        assert called == []
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await ids(database) == {"a"}
    assert called == ["own"]
    await assert_whole(database)


async def test_a_deadline_inside_a_transaction_rolls_back(database):
    async def dawdle():
        async with asyncio.timeout(0.1), database.transaction() as tx:
            await tx.execute(INSERT, "a")
            await tx.execute("SELECT pg_sleep(30)")

    with pytest.raises(TimeoutError):
        await dawdle()
    assert await ids(database) == set()
    await assert_whole(database)


async def test_a_connection_killed_inside_a_transaction_is_an_error_and_the_pool_heals(database):
    """F07."""

    async def be_killed():
        async with database.transaction() as tx:
            await tx.execute(INSERT, "a")
            pid = await tx.fetchval("SELECT pg_backend_pid()")
            await database.pool.execute("SELECT pg_terminate_backend($1)", pid)

    with pytest.raises(UNAVAILABLE_ERRORS):
        await be_killed()
    assert await ids(database) == set()
    await assert_whole(database)


async def test_a_full_pool_is_overloaded_at_the_callers_deadline(database_url, monkeypatch):
    monkeypatch.setattr("chassis.postgres.database._ACQUIRE_SECONDS", 60)
    async with Database.open(database_url, connections=1) as database, database.connection():
        enter_call(Call(method="test", deadline=time.monotonic() + 0.2))
        began = time.monotonic()
        with pytest.raises(Overloaded):
            async with database.connection():
                pass
        assert time.monotonic() - began < 20
        enter_call(None)


async def test_a_full_pool_serves_waiting_callers_once_a_connection_is_free(database_url):
    async with Database.open(database_url, connections=2) as database:

        async def write(number):
            async with database.transaction() as tx:
                await tx.execute(INSERT, str(number))

        await asyncio.gather(*map(write, range(100)))
        assert len(await ids(database)) == 100


async def test_cancelled_waiters_leak_no_connection(database_url):
    async with Database.open(database_url, connections=2) as database:
        async with database.connection(), database.connection():
            waiters = [asyncio.create_task(use(database)) for _ in range(50)]
            await asyncio.sleep(0.01)
            for waiter in waiters[::2]:
                waiter.cancel()
        outcomes = await asyncio.gather(*waiters, return_exceptions=True)
        assert outcomes.count(1) == 25
        await assert_whole(database, size=2)


async def test_shielded_work_ends_before_its_caller_is_cancelled():
    finished = []
    go_on = asyncio.Event()

    async def work():
        await go_on.wait()
        finished.append(True)

    task = asyncio.create_task(run_shielded(work()))
    await asyncio.sleep(0)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert finished == [True]


async def test_shielded_work_returns_or_raises_its_own_result():
    async def fail():
        raise ValueError("own")

    async def answer():
        return 7

    assert await run_shielded(answer()) == 7
    with pytest.raises(ValueError, match="own"):
        await run_shielded(fail())


async def use(database):
    async with database.connection() as connection:
        return await connection.fetchval("SELECT 1")


async def assert_whole(database, size=5):
    """Every connection is back in the pool, outside of a transaction, and usable."""
    await eventually(lambda: database.pool.get_idle_size() == database.pool.get_size())
    assert await asyncio.gather(*(use(database) for _ in range(2 * size))) == [1] * 2 * size
    await eventually(lambda: has_no_transaction_open(database))


async def has_no_transaction_open(database):
    return not await database.pool.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
    )


async def test_a_connection_in_a_transaction_is_not_reused(database_url):
    async with Database.open(database_url, 1) as database:
        async with database.connection() as connection:
            await connection.execute("BEGIN")
        async with database.connection() as connection:
            assert not connection.connection.is_in_transaction()


async def test_a_begin_that_is_cancelled_leaves_no_transaction_open(database_url):
    async with Database.open(database_url, 1) as database:

        async def work():
            async with database.transaction() as tx:
                await tx.begin()
                await asyncio.Event().wait()

        for turns in range(30):
            task = asyncio.create_task(work())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            async with database.connection() as connection:
                assert not connection.connection.is_in_transaction()


async def test_an_error_is_raised_although_its_connection_is_lost(database):
    async def fail():
        async with database.transaction() as tx:
            pid = await tx.fetchval("SELECT pg_backend_pid()")
            await database.pool.execute("SELECT pg_terminate_backend($1)", pid)
            with suppress(asyncpg.InterfaceError):  # the pool has taken it away
                await eventually(tx.connection.is_closed)
            raise ValueError("own")

    with pytest.raises(ValueError, match="own"):
        await fail()
    await assert_whole(database)


async def test_a_transaction_that_fails_is_rolled_back_before_its_connection_goes_back(database):
    """The pool would do it too, with a warning."""
    told = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))

    async def fail():
        async with database.transaction() as tx:
            await tx.begin()
            raise ValueError("own")

    with pytest.raises(ValueError, match="own"):
        await fail()
    assert told == []


async def test_every_wait_for_the_database_is_bounded(database_url, monkeypatch):
    monkeypatch.setattr("chassis.postgres.database._STATEMENT_SECONDS", 0.1)
    async with Database.open(database_url) as database:
        with pytest.raises(TimeoutError):
            await database.pool.execute("SELECT pg_sleep(60)")
        kept = await database.pool.fetch(
            "SELECT setting FROM pg_settings WHERE name IN ('lock_timeout', 'idle_in_transaction_session_timeout')",
            timeout=30,
        )
    assert sorted(int(row["setting"]) for row in kept) == [10_000, 30_000]


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (asyncpg.AdminShutdownError, True),
        (asyncpg.CannotConnectNowError, True),
        (asyncpg.ConnectionDoesNotExistError, True),
        (asyncpg.TooManyConnectionsError, True),
        (asyncpg.DiskFullError, True),
        (asyncpg.PostgresIOError, True),
        (asyncpg.ReadOnlySQLTransactionError, True),
        (ConnectionRefusedError, True),
        (TimeoutError, True),
        (asyncpg.DataError, False),
        (asyncpg.UniqueViolationError, False),
        (asyncpg.DeadlockDetectedError, False),
        (asyncpg.LockNotAvailableError, False),
    ],
    ids=lambda one: getattr(one, "__name__", one),
)
def test_errors_of_an_unavailable_database_are_not_the_requests(error, away):
    assert issubclass(error, UNAVAILABLE_ERRORS) is away


async def test_a_connection_to_a_server_that_became_read_only_is_replaced(database_url, database):
    """After a failover the pool still has connections to the old primary, which is a standby now."""
    name = await database.pool.fetchval("SELECT current_database()")
    await database.pool.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    async with Database.open(database_url) as demoted:
        assert await demoted.pool.fetchval("SHOW transaction_read_only") == "on"
        await database.pool.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
        with pytest.raises(UNAVAILABLE_ERRORS):
            await insert_note(demoted)
        await insert_note(demoted)


async def insert_note(database):
    async with database.transaction() as tx:
        await tx.execute("INSERT INTO note (id) VALUES ('n')")
