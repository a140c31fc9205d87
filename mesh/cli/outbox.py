"""`shopmesh outbox`: how far the events of a running stack are, and publishing events again."""

from datetime import timedelta
from typing import Annotated, Any

import asyncpg
import typer
import uvloop
from rich.table import Table

from mesh.cli.terminal import AsJson, StateDir, out, print_json, running_stack, state_in
from mesh.errors import StackError
from mesh.qa.verify.sources import sources_of

outbox = typer.Typer(no_args_is_help=True, help="The events that services publish.", add_completion=False)

#: Each count reads a bounded number of rows.
_LAG = """
SELECT (SELECT count(*) FROM (SELECT FROM outbox WHERE publish_time IS NULL LIMIT 100000) AS waiting) AS unpublished,
    (SELECT extract(epoch FROM now() - create_time)::float FROM outbox WHERE publish_time IS NULL ORDER BY id LIMIT 1)
        AS oldest_seconds,
    (SELECT count(*) FROM (SELECT FROM outbox, relay WHERE publish_time >= acknowledge_time LIMIT 100000) AS sent)
        AS unacknowledged,
    (SELECT holder FROM relay WHERE lease_expire_time > now()) AS leader"""
_PUBLISH_AGAIN = "UPDATE outbox SET publish_time = NULL WHERE publish_time >= now() - $1::interval"


@outbox.command()
def lag(*, json: AsJson = False, state_dir: StateDir = None) -> None:
    """Show for each service the events that wait, and those that a consumer may not have applied yet."""
    rows = uvloop.run(_read(_databases(state_dir)))
    if json:
        print_json(rows)
        return
    table = Table("service", "unpublished", "oldest", "not acknowledged", "relay", box=None, pad_edge=False)
    for name, row in rows.items():
        oldest = "" if row["oldest_seconds"] is None else f"{row['oldest_seconds']:.1f} s"
        leader = "leads" if row["leader"] else "[red]no leader[/]"
        table.add_row(name, str(row["unpublished"]), oldest, str(row["unacknowledged"]), leader)
    out.print(table)


@outbox.command("publish-again")
def publish_again(
    service: Annotated[str, typer.Argument(help="The service whose events the bus has lost.")],
    *,
    minutes: Annotated[float, typer.Option(min=0, help="How far back.")] = 60.0,
    state_dir: StateDir = None,
) -> None:
    """Publish a service's recent events again; consumers drop those that they have applied."""
    databases = _databases(state_dir)
    if service not in databases:
        raise StackError(f"there is no service {service}", fix=f"the services are {', '.join(databases)}")
    count = uvloop.run(_publish_again(databases[service], timedelta(minutes=minutes)))
    out.print(f"{count} events of {service} are published again")


def _databases(state_dir: Any) -> dict[str, str]:
    return sources_of(state_in(state_dir), running_stack(state_dir)).databases


async def _read(databases: dict[str, str]) -> dict[str, dict[str, Any]]:
    rows = {}
    for name, url in databases.items():
        connection = await asyncpg.connect(url)
        try:
            rows[name] = dict(await connection.fetchrow(_LAG) or {})
        finally:
            await connection.close()
    return rows


async def _publish_again(url: str, span: timedelta) -> int:
    connection = await asyncpg.connect(url)
    try:
        done: str = await connection.execute(_PUBLISH_AGAIN, span)
    finally:
        await connection.close()
    return int(done.removeprefix("UPDATE "))
