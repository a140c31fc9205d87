"""Hold, fail and shift what a service does in its database, to bring about what otherwise only bad luck does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg

from chassis.testing import eventually

_GATE = 0x67617465


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Lend a connection to the database as its owner."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def until_blocked(connection: asyncpg.Connection, sessions: int = 1) -> None:
    """Wait until so many sessions of the server wait for a lock; also within a transaction, unlike pg_stat_activity."""
    await eventually(
        lambda: connection.fetchval("SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted"),
        lambda count: count >= sessions,
        seconds=8,  # less than the services' lock_timeout
    )


async def fail_commits(connection: asyncpg.Connection, table: str) -> None:
    """Make each transaction that writes rows of `table` fail when it commits."""
    await _at_commit(connection, table, "RAISE EXCEPTION 'this commit fails'")


@asynccontextmanager
async def held_commits(connection: asyncpg.Connection, table: str) -> AsyncIterator[None]:
    """Keep each transaction that writes rows of `table` from committing before the block ends."""
    await _at_commit(connection, table, f"PERFORM pg_advisory_xact_lock_shared({_GATE})")
    await connection.execute(f"SELECT pg_advisory_lock({_GATE})")
    try:
        yield
    finally:
        await connection.execute(f"SELECT pg_advisory_unlock({_GATE})")


async def _at_commit(connection: asyncpg.Connection, table: str, statement: str) -> None:
    await connection.execute(
        f"""CREATE FUNCTION at_commit_{table}() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN {statement}; RETURN NULL; END $$;
            CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT OR UPDATE ON {table} DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION at_commit_{table}()"""
    )


async def install_clock(connection: asyncpg.Connection) -> None:
    """Let `advance_clock` move now() of the sessions that connect from now on."""
    await connection.execute(
        """CREATE SCHEMA clock;
           CREATE TABLE clock.ahead (by interval NOT NULL);
           INSERT INTO clock.ahead VALUES ('0');
           CREATE FUNCTION clock.now() RETURNS timestamptz LANGUAGE sql STABLE AS
               'SELECT pg_catalog.now() + by FROM clock.ahead'"""
    )
    await connection.execute(
        f'ALTER DATABASE "{await connection.fetchval("SELECT current_database()")}"'
        " SET search_path = clock, pg_catalog, public"
    )


async def advance_clock(connection: asyncpg.Connection, by: timedelta) -> None:
    """Move the database's clock ahead of the process's."""
    await connection.execute("UPDATE clock.ahead SET by = by + $1", by)
