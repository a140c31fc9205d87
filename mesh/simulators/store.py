"""The store of a simulator, one SQLite file: each change is committed before its reply.

A kill -9 loses no acknowledged change. Without a file, the store is in memory.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

Row = sqlite3.Row


class SqliteStore:
    """A SQLite database with one connection."""

    def __init__(self, file: Path | None, *schemas: str) -> None:
        self._connection = sqlite3.connect(file or ":memory:", isolation_level=None)
        self._connection.row_factory = Row
        # In this mode a commit survives the process without an fsync.
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        for schema in schemas:
            self._connection.executescript(schema)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the block in a transaction. It must not await: there is one connection."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def execute(self, sql: str, **values: Any) -> None:
        """Execute a statement."""
        self._connection.execute(sql, values)

    def rows(self, sql: str, **values: Any) -> list[Row]:
        """Return every row."""
        return self._connection.execute(sql, values).fetchall()

    def row(self, sql: str, **values: Any) -> Row | None:
        """Return the first row, if any."""
        found: Row | None = self._connection.execute(sql, values).fetchone()
        return found

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def timestamp(seconds_ago: float = 0) -> str:
    """Return the time as RFC 3339 in UTC, which sorts by time as text."""
    moment = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
