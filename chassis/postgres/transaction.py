"""A transaction: reads and locks at once, writes together at its end."""

import re
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from chassis.cancellation import run_shielded
from chassis.postgres.writes import Writes

Record = asyncpg.Record

#: A read that leaves nothing behind.
_PLAIN_READ = re.compile(
    r"\s*(?:--[^\n]*\n\s*)*SELECT\b(?!.*(?:\bFOR (?:NO KEY |KEY )?(?:UPDATE|SHARE)\b|\bpg_|set_config))", re.DOTALL
)
#: An estimate of the clock is as old at most, since clocks run at different speeds.
_ESTIMATE_SECONDS = 60.0


class Clock:
    """The database's clock, estimated from the time when it was read."""

    def __init__(self) -> None:
        """Begin without an estimate."""
        self._read: tuple[float, datetime] | None = None

    def set(self, now: datetime | None) -> None:
        """Set what was read just now; None when the estimate was wrong."""
        self._read = (time.monotonic(), now) if now else None

    def estimate(self) -> datetime | None:
        """Return the time, None when it was not read for long."""
        if self._read is None or (passed := time.monotonic() - self._read[0]) > _ESTIMATE_SECONDS:
            return None
        return self._read[1] + timedelta(seconds=passed)


class Transaction:
    """What store functions take.

    BEGIN is sent with the first statement that locks or executes a write at once: a transaction that only writes at its
    end is one statement. The plain reads before it see what was committed when each was executed.
    """

    def __init__(
        self,
        acquire: Callable[[], Awaitable[PoolConnectionProxy]],
        release: Callable[[PoolConnectionProxy], Awaitable[None]],
        commit_alone: Callable[[Writes], Awaitable[None]],
        clock: Clock,
        *,
        optimistic: bool,
    ) -> None:
        """`acquire` and `release` lend a connection; `commit_alone` commits a transaction that is one statement."""
        #: Whether this is the first attempt at a change, which may trust the versions and the time that it has read: a
        #: conflict rolls it back, and the next attempt locks what it reads.
        self.optimistic = optimistic
        #: Called after the commit.
        self.callbacks: list[Callable[[], object]] = []
        self.connection: PoolConnectionProxy | None = None
        self._acquire = acquire
        self._release = release
        self._commit_alone = commit_alone
        self._clock = clock
        self._transaction: asyncpg.transaction.Transaction | None = None
        self._writes: list[Writes] = []
        self._times: list[datetime] = []

    @classmethod
    def of(cls, connection: PoolConnectionProxy) -> "Transaction":
        """Return what reads from a connection, each time as of then."""
        return _Reads(connection)

    async def fetch(self, query: str, *args: Any) -> list[Record]:
        """Return rows."""
        return await (await self._ready(query)).fetch(query, *args)

    async def fetchrow(self, query: str, *args: Any) -> Record | None:
        """Return the first row, None when there is none."""
        return await (await self._ready(query)).fetchrow(query, *args)

    async def fetchval(self, query: str, *args: Any) -> Any:
        """Return the first value of the first row, None when there is none."""
        return await (await self._ready(query)).fetchval(query, *args)

    async def execute(self, query: str, *args: Any) -> str:
        """Execute a statement now, and return its status."""
        return await (await self._ready(query)).execute(query, *args)

    def write(self, query: str, *rows: Sequence[Any]) -> None:
        """Write rows at the end of the transaction, or before its next statement; see `writes` for the query.

        Each row is written exactly once, or SerializationError is raised at that time.
        """
        if not rows:
            return
        if not self._writes or not self._writes[-1].accepts(query):
            self._writes.append(Writes())
        self._writes[-1].add(query, rows)

    async def now(self) -> datetime:
        """Return the database's clock; estimated while the transaction is optimistic, and compared at its end."""
        if self.optimistic and self._transaction is None and (estimate := self._clock.estimate()):
            self._times.append(estimate)
            return estimate
        now: datetime = await (await self._connected()).fetchval("SELECT now()")
        self._clock.set(now)
        return now

    @property
    def is_empty(self) -> bool:
        """Return whether nothing was written or locked."""
        return self._transaction is None and not self._writes

    async def begin(self) -> None:
        """Begin, unless it has begun."""
        if self._transaction is None:
            self._transaction = (await self._connected()).transaction()
            # Shielded: a BEGIN that was sent must be followed by its end before others get the connection.
            await run_shielded(self._transaction.start())

    async def commit(self) -> None:
        """Send the writes, and commit; what fails is rolled back."""
        if self._transaction is None and len(self._writes) == 1:
            self._writes[0].times = self._times
            await self.release()  # the statement takes a connection of its own, which all that wait for it might hold
            try:
                await self._commit_alone(self._writes[0])
            except asyncpg.SerializationError:
                self._clock.set(None)
                raise
            return
        try:
            await self._flush()
        except BaseException:
            await self.rollback()
            raise
        if self._transaction is not None:
            await self._transaction.commit()

    async def rollback(self) -> None:
        """Roll back. A lost connection is rolled back, and a transaction that did not begin needs no end."""
        if self._transaction is not None:
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
                await self._transaction.rollback()

    async def release(self) -> None:
        """Return the connection to the pool."""
        connection, self.connection = self.connection, None
        if connection is not None:
            await self._release(connection)

    async def _connected(self) -> PoolConnectionProxy:
        if self.connection is None:
            self.connection = await self._acquire()
        return self.connection

    async def _ready(self, query: str) -> PoolConnectionProxy:
        if self._writes or not _is_plain_read(query):
            await self.begin()
            await self._flush()
        return await self._connected()

    async def _flush(self) -> None:
        if not self._writes:
            return
        await self.begin()
        connection = await self._connected()
        writes, self._writes = self._writes, []
        writes[0].times, self._times = self._times, []
        for one in writes:
            statement, arguments = one.statement()
            await connection.fetchval(statement, *arguments)


class _Reads(Transaction):
    """Statements on a connection, each a transaction of its own."""

    def __init__(self, connection: PoolConnectionProxy) -> None:
        self.optimistic = False
        self.connection = self._lent = connection

    async def now(self) -> datetime:
        now: datetime = await self._lent.fetchval("SELECT now()")
        return now

    async def _ready(self, query: str) -> PoolConnectionProxy:  # noqa: ARG002
        return self._lent


@lru_cache(4096)
def _is_plain_read(query: str) -> bool:
    return _PLAIN_READ.match(query) is not None
