"""`shopmesh dlq`: the events that consumers could not apply."""

from importlib import import_module
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import asyncpg
import typer
import uvloop
from google.protobuf.message import DecodeError
from rich.markup import escape
from rich.table import Table

from chassis.events import dead_letters
from chassis.postgres.database import Database
from chassis.rpc.redact import redacted
from mesh.cli.terminal import AsJson, StateDir, out, print_json, running_stack, state_in
from mesh.errors import StackError
from mesh.qa.verify.sources import sources_of

dlq = typer.Typer(no_args_is_help=True, help="The events that consumers could not apply.", add_completion=False)

EventId = Annotated[UUID, typer.Argument(help="The event's id.")]

_LIST = """
SELECT event_id::text, type, key, attempts, error, create_time::text, redrive_request_time::text
FROM dead_letter WHERE redrive_time IS NULL ORDER BY create_time LIMIT 1000"""
_SHOW = """
SELECT consumer, event_id::text, topic, type, key, traceparent, attempts, error, create_time::text,
    redrive_request_time::text, redrive_time::text, payload
FROM dead_letter WHERE event_id = $1"""


@dlq.command("list")
def list_letters(*, json: AsJson = False, state_dir: StateDir = None) -> None:
    """List the dead letters that were not redriven, the oldest of each service first."""
    rows = uvloop.run(_read(_databases(state_dir), _LIST))
    if json:
        print_json(rows)
        return
    table = Table("service", "event", "type", "key", "attempts", "error", box=None, pad_edge=False)
    for row in rows:
        shown = (row["service"], row["event_id"], row["type"], row["key"], str(row["attempts"]), row["error"])
        table.add_row(*map(escape, shown))
    out.print(table if rows else "no dead letters")


@dlq.command()
def show(event_id: EventId, *, state_dir: StateDir = None) -> None:
    """Show a dead letter with its payload, without sensitive fields."""
    rows = uvloop.run(_read(_databases(state_dir), _SHOW, event_id))
    if not rows:
        raise StackError(f"there is no dead letter {event_id}", fix="see `shopmesh dlq list`")
    print_json([row | {"payload": _decoded(row["type"], row["payload"])} for row in rows])


@dlq.command()
def redrive(
    event_id: Annotated[UUID | None, typer.Argument(help="The event's id.")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Redrive all that were not redriven.")] = False,
    state_dir: StateDir = None,
) -> None:
    """Give dead letters to their handlers again: after the fix of what made them fail."""
    if (event_id is None) is not everything:
        raise StackError("name an event, or --all", fix="see `shopmesh dlq list`")
    count = uvloop.run(_redrive(_databases(state_dir), str(event_id) if event_id else None))
    if event_id and not count:
        raise StackError(f"no dead letter {event_id} waits for a redrive", fix="see `shopmesh dlq list`")
    out.print(f"{count} requested; `shopmesh dlq list` shows those that fail again")


def _databases(state_dir: Path | None) -> dict[str, str]:
    return sources_of(state_in(state_dir), running_stack(state_dir)).databases


async def _read(databases: dict[str, str], query: str, *arguments: object) -> list[dict[str, Any]]:
    rows = []
    for name, url in databases.items():
        connection = await asyncpg.connect(url)
        try:
            rows += [{"service": name, **row} for row in await connection.fetch(query, *arguments)]
        finally:
            await connection.close()
    return rows


async def _redrive(databases: dict[str, str], event_id: str | None) -> int:
    count = 0
    for url in databases.values():
        async with Database.open(url, connections=1) as database, database.transaction() as tx:
            count += await dead_letters.request_redrive(tx, event_id)
    return count


def _decoded(event_type: str, payload: bytes) -> object:
    """Return the payload as JSON, or its size when it is no message of the contract."""
    package, _, name = event_type.rpartition(".")
    try:
        domain = package.split(".")[1]
        kind = getattr(import_module(f"{package}.{domain}_events_pb2"), name)
        return redacted(kind.FromString(payload))
    except (ImportError, AttributeError, IndexError, ValueError, DecodeError):
        return f"{len(payload)} bytes"
