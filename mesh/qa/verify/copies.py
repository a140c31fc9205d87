"""The rows that checks between services need, copied to a database of their own."""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from mesh.qa.verify.checks import HISTORY, TOGETHER, Check, read_derived, read_shared

#: The violations of a check that are shown and counted, at most: there may be more rows than fit into memory.
MOST_ROWS = 1_000
#: How the names of columns end that tables are joined by.
_KEYS = ("_id", "key", "reference", "sku", "op")

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check: the rows that violate the invariant, at most MOST_ROWS."""

    check: Check
    rows: Sequence[Row]

    def as_json(self) -> dict[str, Any]:
        """Return the finding as JSON."""
        check = self.check
        rows = [{name: _plain(value) for name, value in row.items()} for row in self.rows]
        return {
            "where": check.where,
            "name": check.name,
            "invariants": check.numbers,
            "description": check.description,
            "rows": rows,
        }


@dataclass(frozen=True, slots=True)
class Table:
    """Rows copied from a database, a ledger, the bus or a history."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[Any]]


class Copies:
    """The copied tables, in a database that SQLite writes to a temporary file when it is large."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("")
        self._database.row_factory = sqlite3.Row
        self._columns: dict[str, tuple[str, ...]] = {}

    def insert(self, name: str, table: Table) -> None:
        """Add rows to the table of this name, which the first ones create."""
        if name not in self._columns:
            self._columns[name] = table.columns
            self._database.execute(f"CREATE TABLE {name} ({', '.join(table.columns)})")
        places = ", ".join("?" * len(table.columns))
        self._database.executemany(f"INSERT INTO {name} VALUES ({places})", table.rows)  # noqa: S608  our own names

    def check(self) -> list[Finding]:
        """Return the findings of the cross-service invariants."""
        for name, columns in self._columns.items():
            # Every join is by an id: without an index its time would grow with the square of the rows.
            for column in columns:
                if column.endswith(_KEYS):
                    self._database.execute(f"CREATE INDEX IF NOT EXISTS {name}_by_{column} ON {name} ({column})")
        places = (TOGETHER, HISTORY) if "operation" in self._columns else (TOGETHER,)
        for one in (derived for where in places for derived in read_derived(where)):
            if one.sql:
                self._database.execute(f"CREATE TABLE {one.name} AS {one.sql}")
            self._database.execute(f"CREATE INDEX {one.name}_lookup ON {one.name} ({', '.join(one.indexed)})")
        self._database.execute("ANALYZE")
        return [Finding(check, self._violations(check)) for where in places for check in read_shared(where)]

    def _violations(self, check: Check) -> list[Row]:
        return [dict(row) for row in self._database.execute(check.sql).fetchmany(MOST_ROWS)]

    def close(self) -> None:
        """Delete the copies."""
        self._database.close()


def check_together(tables: Sequence[tuple[str, Table]]) -> list[Finding]:
    """Return the findings of the cross-service invariants, from the copied tables."""
    with closing(Copies()) as copies:
        for name, table in tables:
            copies.insert(name, table)
        return copies.check()


def _plain(value: Any) -> Any:
    """Return a value as JSON."""
    return value if value is None or isinstance(value, bool | int | float | str | list) else str(value)
