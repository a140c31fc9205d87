"""What a simulator remembers, in one SQLite file: each change is committed before it is answered.

A kill -9 loses nothing that was answered. Without a file it lasts as long as the process.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

Row = sqlite3.Row


class Journal:
    def __init__(self, file: Path | None, *schemas: str) -> None:
        self._connection = sqlite3.connect(file or ":memory:", isolation_level=None)
        self._connection.row_factory = Row
        # In this mode a commit outlives the process without waiting for the disk.
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        for schema in schemas:
            self._connection.executescript(schema)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing. Nothing may be awaited inside: there is one connection."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def execute(self, sql: str, **values: Any) -> None:
        self._connection.execute(sql, values)

    def rows(self, sql: str, **values: Any) -> list[Row]:
        return self._connection.execute(sql, values).fetchall()

    def row(self, sql: str, **values: Any) -> Row | None:
        found: Row | None = self._connection.execute(sql, values).fetchone()
        return found

    def close(self) -> None:
        self._connection.close()


def timestamp(seconds_ago: float = 0) -> str:
    """A moment as RFC 3339, the way every object and event tells time; as text it sorts by time."""
    moment = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
