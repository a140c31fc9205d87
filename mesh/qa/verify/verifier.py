"""Finds the rows of a running shop that violate an invariant.

Each database is read in one snapshot. Checks that hold eventually are repeated until they hold, or until a deadline.
"""

import asyncio
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

import asyncpg

from mesh.errors import StackError
from mesh.qa.simulator_client import SimulatorClient
from mesh.qa.verify import bus_reader
from mesh.qa.verify.bus_reader import Ends
from mesh.qa.verify.checks import PARTICIPANTS, Check, Copy, read_service
from mesh.qa.verify.copies import MOST_ROWS, Copies, Finding, Row, Table
from mesh.qa.verify.decoding import columns_of, decoder_of
from mesh.qa.verify.history_reader import copy_history
from mesh.qa.verify.sources import VerifySources

_POLL_SECONDS = 0.5
_STATEMENT_SECONDS = 60.0
_COPIED_ROWS = 5_000
_LEDGERS = {"charge": "payment_provider", "parcel": "courier"}
#: The columns of both ledgers that checks use.
_LEDGER_COLUMNS = ("reference", "kind", "status", "amount", "currency", "consignment_id")

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def verify(sources: VerifySources, wait: float, history: Path | None = None) -> list[Finding]:
    """Return a finding for every invariant; wait up to `wait` seconds for those that hold eventually.

    The requests recorded in `history` are compared with the state of the shop. Raises StackError.
    """
    clock = asyncio.get_running_loop().time
    until = clock() + wait
    while True:
        findings = await _check(sources, history)
        broken = [finding for finding in findings if finding.rows]
        if not broken or not all(finding.check.eventual for finding in broken) or clock() >= until:
            return findings
        await asyncio.sleep(_POLL_SECONDS)


async def _check(sources: VerifySources, history: Path | None) -> list[Finding]:
    *first, last = PARTICIPANTS
    with closing(Copies()) as copies:
        # What the ledgers and the bus have before the databases are read, the databases know.
        await asyncio.gather(
            *(_copy_ledger(name, getattr(sources, simulator), copies) for name, simulator in _LEDGERS.items())
        )
        ends = await sources.bus.ends() if sources.bus else {}
        others = [name for name in sources.databases if name != last]
        results = await asyncio.gather(
            *(_check_database(name, sources.databases[name], copies, history=bool(history)) for name in others)
        )
        if last in sources.databases:
            results.append(await _check_database(last, sources.databases[last], copies, history=bool(history)))
        findings = [finding for found in results for finding in found]
        if sources.databases.keys() >= {*first, last}:
            await _copy_bus(sources, ends, copies)
            if history:
                copy_history(history, copies)
            findings += copies.check()
        return findings


async def _check_database(service: str, url: str, copies: Copies, *, history: bool = False) -> list[Finding]:
    """Check a service's database and copy its tables; those that only a history is compared with if there is one."""
    checks, tables = read_service(service)
    try:
        connection = await asyncpg.connect(url, command_timeout=_STATEMENT_SECONDS)
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                findings = [Finding(check, await _violations(connection, check)) for check in checks]
                for table in (one for one in tables if history or not one.for_history):
                    await _copy(connection, table, copies)
                return findings
        finally:
            await connection.close()
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StackError(f"the database of {service} cannot be read: {error}", fix="see `shopmesh status`") from error


async def _violations(connection: Connection, check: Check) -> list[Row]:
    cursor = await connection.cursor(check.sql)
    return [dict(row) for row in await cursor.fetch(MOST_ROWS)]


async def _copy(connection: Connection, table: Copy, copies: Copies) -> None:
    """Copy the rows in parts: there may be more than fit into memory."""
    statement = await connection.prepare(table.sql)
    selected = [attribute.name for attribute in statement.get_attributes()]
    columns, decode = columns_of(table, selected), decoder_of(table, selected)
    cursor = await statement.cursor()
    while True:
        rows = await cursor.fetch(_COPIED_ROWS)
        copies.insert(table.name, Table(columns, [copied for row in rows for copied in decode(tuple(row.values()))]))
        if len(rows) < _COPIED_ROWS:
            return


async def _copy_ledger(name: str, simulator: SimulatorClient, copies: Copies) -> None:
    async for page in simulator.ledger_pages():
        rows = [[entry.get(column) for column in _LEDGER_COLUMNS] for entry in page]
        copies.insert(name, Table(_LEDGER_COLUMNS, rows))


async def _copy_bus(sources: VerifySources, ends: Ends, copies: Copies) -> None:
    copies.insert("published", Table(bus_reader.COLUMNS, []))
    if sources.bus:
        async for page in sources.bus.pages(sources.databases, ends):
            copies.insert("published", Table(bus_reader.COLUMNS, page))
