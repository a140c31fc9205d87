"""Asks a running shop for everything that breaks an invariant.

Each database is read in one snapshot. What may take a while to come true is asked again until it has, or time is up.
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
from mesh.qa.simulator_client import Partner
from mesh.qa.verify.checks import HISTORY, PARTICIPANTS, TOGETHER, Check, Copy, read_service, read_shared
from mesh.qa.verify.sources import Places

_ASK_AGAIN = 0.5  # seconds
_STATEMENT_SECONDS = 60.0
_BOOKS = {"charge": "payment_provider", "parcel": "courier"}

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """An invariant, and what breaks it."""

    check: Check
    rows: Sequence[Row]

    def as_json(self) -> dict[str, Any]:
        check = self.check
        rows = [{name: _plain(value) for name, value in row.items()} for row in self.rows]
        return {"where": check.where, "name": check.name, "invariants": check.numbers, "says": check.says, "rows": rows}


@dataclass(frozen=True, slots=True)
class Table:
    """Rows that were copied from somewhere."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[Any]]


async def verify(places: Places, patience: float, history: Path | None = None) -> list[Finding]:
    """Every invariant with what breaks it, nothing where it holds; waits up to `patience` seconds for the slow ones.

    What a client wrote down of its requests in `history` is compared with what became of them.
    """
    told = read_history(history) if history else None
    clock = asyncio.get_running_loop().time
    until = clock() + patience
    while True:
        findings = await _ask(places, told)
        broken = [finding for finding in findings if finding.rows]
        if not broken or not all(finding.check.soon for finding in broken) or clock() >= until:
            return findings
        await asyncio.sleep(_ASK_AGAIN)


async def _ask(places: Places, told: Table | None) -> list[Finding]:
    *first, last = PARTICIPANTS
    books = await asyncio.gather(*(_read_book(getattr(places, partner)) for partner in _BOOKS.values()))
    others = [name for name in places.databases if name != last]
    answers = await asyncio.gather(*(_ask_database(name, places.databases[name]) for name in others))
    if last in places.databases:
        answers.append(await _ask_database(last, places.databases[last]))
    findings = [finding for found, _ in answers for finding in found]
    if places.databases.keys() >= {*first, last}:
        tables = [*zip(_BOOKS, books, strict=True), *(table for _, copies in answers for table in copies)]
        findings += ask_together(tables + ([("operation", told)] if told else []))
    return findings


async def _ask_database(service: str, url: str) -> tuple[list[Finding], list[tuple[str, Table]]]:
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
        raise StackError(f"the database of {service} cannot be asked: {error}", fix="see `shopmesh status`") from error


async def _copied(connection: "asyncpg.Connection[asyncpg.Record]", copy: Copy) -> Table:
    statement = await connection.prepare(copy.sql)
    columns = tuple(attribute.name for attribute in statement.get_attributes())
    return Table(columns, [tuple(row.values()) for row in await statement.fetch()])


async def _read_book(partner: Partner) -> Table:
    entries = await partner.ledger()
    return Table(_BOOK_COLUMNS, [[entry.get(column) for column in _BOOK_COLUMNS] for entry in entries])


_HISTORY_COLUMNS = ("op", "kind", "key", "outcome", "order_id", "state", "reason")
#: Of both partners' books, as far as checks ask for them.
_BOOK_COLUMNS = ("reference", "kind", "status", "amount", "currency", "consignment_id")


def ask_together(tables: Sequence[tuple[str, Table]]) -> list[Finding]:
    """What breaks an invariant that several services keep together, asked of what was copied from each."""
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
    """What `shopmesh load` wrote; StackError when it did not."""
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return Table(_HISTORY_COLUMNS, [[line.get(column) for column in _HISTORY_COLUMNS] for line in lines])
    except (OSError, ValueError, AttributeError) as error:
        raise StackError(f"the history {path} cannot be read: {error}") from error


def _plain(value: Any) -> Any:
    """A value of a row as JSON has it."""
    return value if value is None or isinstance(value, bool | int | float | str | list) else str(value)
