"""Finds the rows of a running shop that violate an invariant.

Each database is read in one snapshot. Checks that hold eventually are repeated until they hold, or until a deadline.
"""

import asyncio
import json
import sqlite3
from collections.abc import Mapping, Sequence
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
    ledgers = await asyncio.gather(*(_read_ledger(getattr(sources, simulator)) for simulator in _LEDGERS.values()))
    others = [name for name in sources.databases if name != last]
    results = await asyncio.gather(*(_check_database(name, sources.databases[name]) for name in others))
    if last in sources.databases:
        results.append(await _check_database(last, sources.databases[last]))
    findings = [finding for found, _ in results for finding in found]
    if sources.databases.keys() >= {*first, last}:
        tables = [*zip(_LEDGERS, ledgers, strict=True), *(table for _, copies in results for table in copies)]
        findings += check_together(tables + ([("operation", history_table)] if history_table else []))
    return findings


async def _check_database(service: str, url: str) -> tuple[list[Finding], list[tuple[str, Table]]]:
    checks, copies = read_service(service)
    try:
        connection = await asyncpg.connect(url, command_timeout=_STATEMENT_SECONDS)
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                findings = [
                    Finding(check, [dict(row) for row in await connection.fetch(check.sql)]) for check in checks
                ]
                return findings, [(copy.name, await _copied(connection, copy)) for copy in copies]
        finally:
            await connection.close()
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StackError(f"the database of {service} cannot be read: {error}", fix="see `shopmesh status`") from error


async def _copied(connection: "asyncpg.Connection[asyncpg.Record]", copy: Copy) -> Table:
    statement = await connection.prepare(copy.sql)
    columns = tuple(attribute.name for attribute in statement.get_attributes())
    return Table(columns, [tuple(row.values()) for row in await statement.fetch()])


async def _read_ledger(simulator: SimulatorClient) -> Table:
    entries = await simulator.ledger()
    return Table(_LEDGER_COLUMNS, [[entry.get(column) for column in _LEDGER_COLUMNS] for entry in entries])


_HISTORY_COLUMNS = ("op", "kind", "key", "outcome", "order_id", "state", "reason")
#: The columns of both ledgers that checks use.
_LEDGER_COLUMNS = ("reference", "kind", "status", "amount", "currency", "consignment_id")


def check_together(tables: Sequence[tuple[str, Table]]) -> list[Finding]:
    """Return the findings of the cross-service invariants, from the copied tables."""
    checks = read_shared(TOGETHER)
    if "operation" in dict(tables):
        checks += read_shared(HISTORY)
    database = sqlite3.connect(":memory:")
    try:
        database.row_factory = sqlite3.Row
        for name, table in tables:
            database.execute(f"CREATE TABLE IF NOT EXISTS {name} ({', '.join(table.columns)})")
            places = ", ".join("?" * len(table.columns))
            database.executemany(f"INSERT INTO {name} VALUES ({places})", table.rows)  # noqa: S608  our own names
        for name, column in (("event", "event_id"), ("applied", "event_id"), ("payment", "payment_id")):
            database.execute(f"CREATE INDEX {name}_by_{column} ON {name} ({column})")
        return [Finding(check, [dict(row) for row in database.execute(check.sql)]) for check in checks]
    finally:
        database.close()


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
