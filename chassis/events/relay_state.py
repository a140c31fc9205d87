"""The state of the relay in the database: its lease, how far it has published, and what is acknowledged."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from asyncpg.pool import PoolConnectionProxy

from chassis.events.bus import NO_POSITIONS, Positions
from chassis.postgres.database import Database

_CREATE = "INSERT INTO relay DEFAULT VALUES ON CONFLICT DO NOTHING"
_ACQUIRE = """
UPDATE relay SET holder = $1, lease_expire_time = now() + $2::interval FROM (SELECT holder AS last FROM relay) AS before
WHERE holder = $1 OR lease_expire_time < now()
RETURNING last, positions, position_time, acknowledge_time"""
#: A lease need not survive a crash of the database, so its commit does not wait for the disk.
_RENEW = """
UPDATE relay SET lease_expire_time = now() + $2::interval
WHERE holder = $1 AND set_config('synchronous_commit', 'off', true) = 'off' RETURNING true"""
_SAVE = """
UPDATE relay SET positions = $2::jsonb, position_time = now(), acknowledge_time = $3 WHERE holder = $1
RETURNING position_time"""
_LEAVE = "UPDATE relay SET holder = '', lease_expire_time = '-infinity' WHERE holder = $1"
_EXPIRE = "UPDATE relay SET lease_expire_time = '-infinity' WHERE holder = $1"
#: The lease is checked in the statement itself: a process that was paused before it must not mark what another has
#: since found lost.
_PUBLISHED = """
UPDATE outbox SET publish_time = now() WHERE id = ANY($1) AND EXISTS (SELECT FROM relay WHERE holder = $2)"""
_UNPUBLISH = """
UPDATE outbox SET publish_time = NULL WHERE id = ANY(ARRAY(
    SELECT id FROM outbox
    WHERE publish_time >= greatest(now() - $3::interval, $2::timestamptz - $4::interval) LIMIT $5))
AND EXISTS (SELECT FROM relay WHERE holder = $1)"""

#: A paused or lost leader is replaced after this time, at most a poll later.
_LEASE = timedelta(seconds=3)
_RENEWALS_PER_LEASE = 3
#: More than clocks of a database and its successor differ; repeated events are harmless.
_CLOCK_MARGIN = timedelta(seconds=5)
_UNPUBLISH_BATCH = 10_000


class LeaseLost(Exception):
    """Another process leads."""


class RelayState:
    """The row of the relay, as the process `holder` sees it while it leads."""

    def __init__(self, database: Database, holder: str, retention: timedelta) -> None:
        """`retention` is how long published events are stored."""
        self._database = database
        self._holder = holder
        self._retention = retention
        self._acquired: Any = None
        self._saved: tuple[Positions, datetime | None] | None = None
        self._saved_time: datetime | None = None
        #: Whether `positions` are those of every event that is marked as published.
        self._complete = False
        self.positions: Positions = NO_POSITIONS
        #: Every group has acknowledged the events that were published before.
        self.acknowledge_time: datetime | None = None

    @property
    def renewal_seconds(self) -> float:
        """Seconds between two renewals of the lease."""
        return _LEASE.total_seconds() / _RENEWALS_PER_LEASE

    async def acquire(self, connection: PoolConnectionProxy) -> bool:
        """Acquire the lease, unless another process holds it."""
        self._acquired = await connection.fetchrow(_ACQUIRE, self._holder, _LEASE)
        if self._acquired is None and not await connection.fetchval("SELECT true FROM relay"):
            await connection.execute(_CREATE)
            self._acquired = await connection.fetchrow(_ACQUIRE, self._holder, _LEASE)
        return self._acquired is not None

    async def renew(self, connection: PoolConnectionProxy) -> bool:
        """Extend the lease; return False when another process has it."""
        return bool(await connection.fetchval(_RENEW, self._holder, _LEASE))

    async def take_over(self) -> None:
        """Continue where the last leader was; publish again what it may have published without saving its places."""
        row = self._acquired
        if row["last"] == self._holder and self._complete:
            return
        self._complete, self._saved = False, None
        self.positions = json.loads(row["positions"] or "{}")
        self.acknowledge_time = row["acknowledge_time"]
        if row["positions"] is None or row["last"]:
            await self._unpublish(row["position_time"])
        await self.save()
        self._complete = True

    async def mark_published(self, ids: Sequence[int]) -> None:
        """Mark rows as published; raises LeaseLost when another process leads, which publishes them again."""
        if await self._database.pool.execute(_PUBLISHED, ids, self._holder) == "UPDATE 0":
            raise LeaseLost

    async def publish_again(self) -> None:
        """Make all events unpublished that a group may not have acknowledged."""
        await self._unpublish(self.acknowledge_time)
        self.positions = NO_POSITIONS
        await self.save()

    async def save(self) -> datetime | None:
        """Save the positions; return a time before which all published events have places up to these.

        Raises LeaseLost.
        """
        if (self.positions, self.acknowledge_time) != self._saved:
            saved = self.positions, self.acknowledge_time
            time = await self._database.pool.fetchval(_SAVE, self._holder, json.dumps(dict(saved[0])), saved[1])
            if time is None:
                raise LeaseLost
            self._saved, self._saved_time = saved, time
        return self._saved_time

    async def leave(self, connection: PoolConnectionProxy) -> None:
        """Release the lease for the next process."""
        if self._complete:
            await connection.execute(_SAVE, self._holder, json.dumps(dict(self.positions)), self.acknowledge_time)
        await connection.execute(_LEAVE if self._complete else _EXPIRE, self._holder)

    async def _unpublish(self, since: datetime | None) -> None:
        arguments = (self._holder, since, self._retention, _CLOCK_MARGIN, _UNPUBLISH_BATCH)
        while await self._database.pool.execute(_UNPUBLISH, *arguments) == f"UPDATE {_UNPUBLISH_BATCH}":
            pass
