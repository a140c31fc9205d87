"""Finds the rows of a running shop that violate an invariant.

Each database is read in one snapshot. Checks that hold eventually are repeated until they hold, or until a deadline.
"""

import asyncio
import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from mesh.errors import StackError
from mesh.qa.simulator_client import SimulatorClient
from mesh.qa.verify.checks import HISTORY, PARTICIPANTS, TOGETHER, Check, Copy, read_service, read_shared
from mesh.qa.verify.sources import VerifySources

_POLL_SECONDS = 0.5
_STATEMENT_SECONDS = 60.0
_COPIED_ROWS = 5_000
#: How the names of columns end that tables are joined by.
_KEYS = ("_id", "key", "reference")
_LEDGERS = {"charge": "payment_provider", "parcel": "courier"}

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check: the rows that violate the invariant."""

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
    """Rows copied from a database, a ledger or a history."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[Any]]


async def verify(sources: VerifySources, wait: float, history: Path | None = None) -> list[Finding]:
    """Return a finding for every invariant; wait up to `wait` seconds for those that hold eventually.

    The requests recorded in `history` are compared with the state of the shop. Raises StackError.
    """
    history_table = read_history(history) if history else None
    clock = asyncio.get_running_loop().time
    until = clock() + wait
    while True:
        findings = await _check(sources, history_table)
        broken = [finding for finding in findings if finding.rows]
        if not broken or not all(finding.check.eventual for finding in broken) or clock() >= until:
            return findings
        await asyncio.sleep(_POLL_SECONDS)


async def _check(sources: VerifySources, history_table: Table | None) -> list[Finding]:
    *first, last = PARTICIPANTS
    with closing(Copies()) as copies:
        ledgers = await asyncio.gather(*(_read_ledger(getattr(sources, simulator)) for simulator in _LEDGERS.values()))
        others = [name for name in sources.databases if name != last]
        results = await asyncio.gather(*(_check_database(name, sources.databases[name], copies) for name in others))
        if last in sources.databases:
            results.append(await _check_database(last, sources.databases[last], copies))
        findings = [finding for found in results for finding in found]
        if sources.databases.keys() >= {*first, last}:
            for name, table in zip(_LEDGERS, ledgers, strict=True):
                copies.insert(name, table)
            if history_table:
                copies.insert("operation", history_table)
            findings += copies.check()
        return findings


async def _check_database(service: str, url: str, copies: "Copies") -> list[Finding]:
    checks, tables = read_service(service)
    try:
        connection = await asyncpg.connect(url, command_timeout=_STATEMENT_SECONDS)
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                findings = [
                    Finding(check, [dict(row) for row in await connection.fetch(check.sql)]) for check in checks
                ]
                for table in tables:
                    await _copy(connection, table, copies)
                return findings
        finally:
            await connection.close()
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StackError(f"the database of {service} cannot be read: {error}", fix="see `shopmesh status`") from error


async def _copy(connection: "asyncpg.Connection[asyncpg.Record]", table: Copy, copies: "Copies") -> None:
    """Copy the rows in parts: there may be more than fit into memory."""
    statement = await connection.prepare(table.sql)
    columns = tuple(attribute.name for attribute in statement.get_attributes())
    cursor = await statement.cursor()
    while True:
        rows = await cursor.fetch(_COPIED_ROWS)
        copies.insert(table.name, Table(columns, [tuple(row.values()) for row in rows]))
        if len(rows) < _COPIED_ROWS:
            return


async def _read_ledger(simulator: SimulatorClient) -> Table:
    entries = await simulator.ledger()
    return Table(_LEDGER_COLUMNS, [[entry.get(column) for column in _LEDGER_COLUMNS] for entry in entries])


_HISTORY_COLUMNS = ("op", "kind", "key", "outcome", "order_id", "state", "reason")
#: The columns of both ledgers that checks use.
_LEDGER_COLUMNS = ("reference", "kind", "status", "amount", "currency", "consignment_id")


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
        self._database.execute("ANALYZE")
        checks = read_shared(TOGETHER) + (read_shared(HISTORY) if "operation" in self._columns else [])
        return [Finding(check, [dict(row) for row in self._database.execute(check.sql)]) for check in checks]

    def close(self) -> None:
        """Delete the copies."""
        self._database.close()


def check_together(tables: Sequence[tuple[str, Table]]) -> list[Finding]:
    """Return the findings of the cross-service invariants, from the copied tables."""
    with closing(Copies()) as copies:
        for name, table in tables:
            copies.insert(name, table)
        return copies.check()


def read_history(path: Path) -> Table:
    """Return the history that `shopmesh load` wrote. Raises StackError when it cannot be read."""
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return Table(_HISTORY_COLUMNS, [[line.get(column) for column in _HISTORY_COLUMNS] for line in lines])
    except (OSError, ValueError, AttributeError) as error:
        raise StackError(f"the history {path} cannot be read: {error}") from error


def _plain(value: Any) -> Any:
    """Return a value as JSON."""
    return value if value is None or isinstance(value, bool | int | float | str | list) else str(value)
