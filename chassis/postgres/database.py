"""PostgreSQL: the pool, transactions whose commit a cancelled call cannot tear, and named queries."""

import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from chassis.cancellation import run_shielded
from chassis.context import Call, current_call
from chassis.metrics import POOL_TIMEOUTS, POOL_WAIT
from chassis.postgres import audit
from chassis.postgres.change_feed import ChangeFeed
from chassis.postgres.group_commit import GroupCommit
from chassis.postgres.transaction import Clock, Record, Transaction
from chassis.postgres.writes import Writes

__all__ = ["Database", "Queries", "Record", "Transaction", "current_time"]

log = logging.getLogger(__name__)

_Callback = Callable[[], object]

_STATEMENT_SECONDS = 15.0
#: A connection that is not used for so long is closed: a session is most of what an idle service costs PostgreSQL.
_IDLE_SECONDS = 15.0
_ACQUIRE_SECONDS = 5.0
#: How long a statement that transactions share waits for a lock, which only one of them may need.
_SHARED_LOCK_TIMEOUT = "SET LOCAL lock_timeout = 200"
#: Rows that one statement purges, at most, so that it ends in time.
_PURGE_BATCH = 10_000
_NAME = re.compile(r"^-- name: ([a-z0-9_]+)\n", re.MULTILINE)


class Overloaded(Exception):
    """No connection became free in time: the caller should come back later."""


#: Errors of a database that is unavailable: no fault of the request.
UNAVAILABLE_ERRORS = (
    Overloaded,
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # how asyncpg may report a connection that was killed
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresSystemError,  # a disk that fails
    asyncpg.ReadOnlySQLTransactionError,  # a standby, or a primary that was demoted
)
#: Errors of concurrent transactions: the same change may succeed when it is tried again.
CONTENTION_ERRORS = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, asyncpg.LockNotAvailableError)

_SESSION_SETTINGS = {
    "idle_in_transaction_session_timeout": "30000",
    "lock_timeout": "10000",
    # The server ends the session of a host that vanished within half a minute, and releases its locks.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "25000",
}


class Queries:
    """The named queries of a `queries.sql`, as attributes: plain SQL with $1, $2 for PostgreSQL to prepare.

    A query starts with `-- name: lock_order` and a comment that says in a sentence what it does.
    """

    def __init__(self, path: Path) -> None:
        """Load the file; raises ValueError for a duplicate name."""
        _, *parts = _NAME.split(path.read_text())
        names, bodies = parts[::2], parts[1::2]
        if len(set(names)) != len(names):
            raise ValueError(f"{path} names a query twice")
        self._queries = {name: body.strip().rstrip(";") for name, body in zip(names, bodies, strict=True)}

    def __getattr__(self, name: str) -> str:
        try:
            return self._queries[name]
        except KeyError:
            raise AttributeError(f"no query is named {name}") from None

    def names(self) -> tuple[str, ...]:
        """Return the names of all queries, in the order of the file."""
        return tuple(self._queries)


class Database:
    """A service's own database."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        """Wrap an open pool; `Database.open` makes both."""
        self.pool = pool
        #: What changed in this database, whichever process changed it.
        self.change_feed = ChangeFeed()
        self._after_every_commit: list[_Callback] = []
        self._clock = Clock()
        self._group = GroupCommit(self._commit_writes, UNAVAILABLE_ERRORS)

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, connections: int = 10) -> AsyncIterator["Database"]:
        """Open a pool of at most `connections`, and close it at the end."""
        pool = await asyncpg.create_pool(
            url,
            min_size=1,
            max_size=connections,
            timeout=_ACQUIRE_SECONDS,
            command_timeout=_STATEMENT_SECONDS,
            max_inactive_connection_lifetime=_IDLE_SECONDS,
            reset=_keep_session,
            server_settings=_SESSION_SETTINGS,
        )
        try:
            yield cls(pool)
        finally:
            await pool.close()

    def after_every_commit(self, callback: _Callback) -> None:
        """Call `callback` after every commit: a hint that rows may have changed, such as the outbox's."""
        self._after_every_commit.append(callback)

    def on_commit(self, tx: Transaction, callback: _Callback) -> None:
        """Call `callback` once `tx` has committed, and never if it rolls back.

        It may be lost with the process, so it can only hasten what happens anyway because of the committed rows.
        """
        tx.callbacks.append(callback)

    async def audit(self, tx: Transaction, calls: Iterable[Call | None]) -> None:
        """Record the privileged ones of the calls whose changes `tx` holds.

        A transaction records the call that it belongs to by itself; the batch of a lane belongs to many.
        """
        for call in calls:
            if call and (audited := await audit.record(tx, call)):
                self.on_commit(tx, partial(_audited, call, audited))

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Transaction]:
        """Lend a connection for reading."""
        connection = await self._acquire()
        try:
            yield Transaction.of(connection)
        finally:
            await run_shielded(self.pool.release(connection))

    @asynccontextmanager
    async def transaction(self, *, optimistic: bool = False) -> AsyncIterator[Transaction]:
        """Run the block in a transaction: commit at its end, roll back when it raises.

        A call that is cancelled while the commit is under way waits for the commit's end and is cancelled then:
        cancelled means unknown, never undone. `optimistic` is for a first attempt, see `Transaction.optimistic`.
        """
        tx = Transaction(self._acquire, self.pool.release, self._group.commit, self._clock, optimistic=optimistic)
        try:
            try:
                yield tx
                await self.audit(tx, [current_call()])
            except BaseException:
                await run_shielded(tx.rollback())
                raise
            await run_shielded(self._commit(tx))
        except asyncpg.ReadOnlySQLTransactionError:
            await self.pool.expire_connections()  # after a failover new connections may find the primary
            raise
        finally:
            await run_shielded(tx.release())

    async def purge_older_than(self, table: str, time_column: str, retention: timedelta) -> bool:
        """Delete rows of `table` whose `time_column` is older than `retention`; return whether there may be more."""
        old = f"SELECT ctid FROM {table} WHERE {time_column} < now() - $1::interval LIMIT {_PURGE_BATCH}"  # noqa: S608
        done = await self.pool.execute(f"DELETE FROM {table} WHERE ctid = ANY(ARRAY({old}))", retention)  # noqa: S608
        return done == f"DELETE {_PURGE_BATCH}"

    async def _commit(self, tx: Transaction) -> None:
        """Commit, and call the callbacks even if the caller was cancelled in the middle."""
        await tx.commit()
        for callback in (*(() if tx.is_empty else self._after_every_commit), *tx.callbacks):
            try:
                callback()
            except Exception:
                log.exception("callback after a commit failed")

    async def _commit_writes(self, writes: Writes, is_shared: bool) -> None:  # noqa: FBT001
        """Commit writes in a transaction of their own."""
        statement, arguments = writes.statement()
        connection = await self._acquire()
        try:
            if not is_shared:
                await connection.fetchval(statement, *arguments)
                return
            async with connection.transaction():
                await connection.execute(_SHARED_LOCK_TIMEOUT)
                await connection.fetchval(statement, *arguments)
        finally:
            await run_shielded(self.pool.release(connection))

    async def _acquire(self) -> PoolConnectionProxy:
        call = current_call()
        left = call.remaining() if call else None
        began = time.perf_counter()
        try:
            seconds = _ACQUIRE_SECONDS if left is None else min(left, _ACQUIRE_SECONDS)
            return await self.pool.acquire(timeout=seconds)
        except TimeoutError:
            POOL_TIMEOUTS.inc()
            raise Overloaded from None
        finally:
            POOL_WAIT.observe(time.perf_counter() - began)


async def current_time(tx: Transaction) -> datetime:
    """Return the database's clock, which stands still within a transaction: the one clock that decides about rows."""
    return await tx.now()


def _audited(call: Call, row: Mapping[str, Any]) -> None:
    assert call.audit is not None
    call.audit.row = row


async def _keep_session(_connection: asyncpg.Connection) -> None:
    """Skip asyncpg's reset of a returned connection: sessions have no settings of their own, and it costs a query.

    The pool has already rolled back a transaction that did not end.
    """
