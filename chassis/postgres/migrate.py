"""Forward-only SQL migrations: `NNNN_verb_object.sql`, each applied once, in order, in a transaction of its own."""

import hashlib
from pathlib import Path

import asyncpg

_LOCK = 0x73686F70  # one migration at a time in a database

_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migration (
    scope text NOT NULL, name text NOT NULL, checksum text NOT NULL, apply_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (scope, name)
)"""
_REMEMBER = "INSERT INTO schema_migration (scope, name, checksum) VALUES ($1, $2, $3)"


class MigrationError(Exception):
    """An applied migration was edited or vanished from the folder, or a new one failed and left nothing behind."""


async def migrate(url: str, package: Path | None = None) -> list[str]:
    """Bring the database at `url` up to date with the chassis's migrations and, if given, with `package`/migrations.

    Return the names that were applied; raises MigrationError.
    """
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        await connection.execute(_TABLE)
        applied = await _apply(connection, "chassis", Path(__file__).parent / "migrations")
        return applied + (await _apply(connection, package.name, package / "migrations") if package else [])
    finally:
        await connection.close()


async def _apply(connection: asyncpg.Connection, scope: str, folder: Path) -> list[str]:
    rows = await connection.fetch("SELECT name, checksum FROM schema_migration WHERE scope = $1", scope)
    known = {row["name"]: row["checksum"] for row in rows}
    files = {path.stem: path.read_text() for path in sorted(folder.glob("*.sql"))}  # noqa: ASYNC240  nothing else runs
    if lost := known.keys() - files.keys():
        raise MigrationError(f"{scope}: applied migrations are gone: {', '.join(sorted(lost))}")
    fresh = []
    for name, sql in files.items():
        checksum = hashlib.sha256(sql.encode()).hexdigest()
        if name in known:
            if known[name] != checksum:
                raise MigrationError(f"{scope}/{name} was edited after it was applied; add a new migration instead")
            continue
        try:
            async with connection.transaction():
                await connection.execute(sql)
                await connection.execute(_REMEMBER, scope, name, checksum)
        except asyncpg.PostgresError as error:
            raise MigrationError(f"{scope}/{name}: {error}") from error
        fresh.append(f"{scope}/{name}")
    return fresh
