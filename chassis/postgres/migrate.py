"""Forward-only SQL migrations: `NNNN_verb_object.sql`, each applied once, in order, while the service runs.

A migration is a transaction. One that begins with `-- concurrently` is executed statement by statement outside of a
transaction, as CREATE INDEX CONCURRENTLY requires; its statements can be repeated. No migration waits long for a
lock, since all later statements of the service would wait behind it; it is repeated until it gets the lock.
"""

import asyncio
import hashlib
import logging
import re
from pathlib import Path

import asyncpg

log = logging.getLogger(__name__)

_LOCK = 0x73686F70  # one migration at a time in a database

_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migration (
    scope text NOT NULL, name text NOT NULL, checksum text NOT NULL, apply_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (scope, name)
)"""
_REMEMBER = "INSERT INTO schema_migration (scope, name, checksum) VALUES ($1, $2, $3)"
#: What a CREATE INDEX CONCURRENTLY that failed leaves behind.
_INVALID_INDEXES = """
SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE NOT indisvalid AND relnamespace = 'public'::regnamespace"""

_CONCURRENTLY = "-- concurrently"
#: How long a migration waits for a lock, how often it tries, and the pause between two tries: five minutes in all.
_LOCK_MILLISECONDS = 2_000
_TRIES = 100
_PAUSE_SECONDS = 1.0
_POLL_SECONDS = 0.2


class MigrationError(Exception):
    """An applied migration was edited or vanished from the folder, or a new one failed and left nothing behind."""


async def migrate(
    url: str, package: Path | None = None, *, lock_milliseconds: int = _LOCK_MILLISECONDS, tries: int = _TRIES
) -> list[str]:
    """Bring the database at `url` up to date with the chassis's migrations and, if given, with `package`/migrations.

    Migrations that a newer release applied are left alone. Return the names that were applied; raises MigrationError.
    """
    connection = await asyncpg.connect(url, server_settings={"lock_timeout": str(lock_milliseconds)})
    try:
        # Not by waiting in a statement: its snapshot would block CREATE INDEX CONCURRENTLY of the process that has it.
        while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):  # noqa: ASYNC110
            await asyncio.sleep(_POLL_SECONDS)
        await connection.execute(_TABLE)
        applied = await _apply(connection, "chassis", Path(__file__).parent / "migrations", tries)
        return applied + (await _apply(connection, package.name, package / "migrations", tries) if package else [])
    finally:
        await connection.close()


async def _apply(connection: asyncpg.Connection, scope: str, folder: Path, tries: int) -> list[str]:
    rows = await connection.fetch("SELECT name, checksum FROM schema_migration WHERE scope = $1", scope)
    known = {row["name"]: row["checksum"] for row in rows}
    files = {path.stem: path.read_text() for path in sorted(folder.glob("*.sql"))}  # noqa: ASYNC240  nothing else runs
    newest = max(files, default="")
    if lost := [name for name in known.keys() - files.keys() if name < newest]:
        raise MigrationError(f"{scope}: applied migrations are gone: {', '.join(sorted(lost))}")
    fresh = []
    for name, sql in files.items():
        checksum = hashlib.sha256(sql.encode()).hexdigest()
        if name in known:
            if known[name] != checksum:
                raise MigrationError(f"{scope}/{name} was edited after it was applied; add a new migration instead")
            continue
        try:
            await _execute(connection, sql, (scope, name, checksum), tries)
        except asyncpg.PostgresError as error:
            raise MigrationError(f"{scope}/{name}: {error}") from error
        fresh.append(f"{scope}/{name}")
    return fresh


async def _execute(connection: asyncpg.Connection, sql: str, entry: tuple[str, str, str], tries: int) -> None:
    """Apply a migration, again while other transactions hold its locks. Raises LockNotAvailableError at the end."""
    for left in reversed(range(tries)):
        try:
            if sql.startswith(_CONCURRENTLY):
                await _execute_concurrently(connection, sql)
                await connection.execute(_REMEMBER, *entry)
            else:
                async with connection.transaction():
                    await connection.execute(sql)
                    await connection.execute(_REMEMBER, *entry)
        except asyncpg.LockNotAvailableError:
            if not left:
                raise
            log.warning("migration waits for a lock", extra={"migration": "/".join(entry[:2])})
            await asyncio.sleep(_PAUSE_SECONDS)
        else:
            return


async def _execute_concurrently(connection: asyncpg.Connection, sql: str) -> None:
    # It blocks no writes while it waits, and a timeout would leave an invalid index.
    await connection.execute("SET lock_timeout = 0")
    for row in await connection.fetch(_INVALID_INDEXES):
        await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {row[0]}")
    for statement in re.split(r";\s*$", sql, flags=re.MULTILINE):
        if re.sub(r"--.*", "", statement).strip():
            await connection.execute(statement)
    await connection.execute("RESET lock_timeout")
