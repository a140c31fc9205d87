"""`shopmesh load`: runs shoppers against a running stack and prints a summary."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop
from rich.table import Table

from mesh.cli.terminal import AsJson, StateDir, err, out, print_json, running_stack, state_in
from mesh.qa.load.history import History
from mesh.qa.load.mixes import Mix
from mesh.qa.load.runner import Credentials, Plan, run_load
from mesh.qa.sample_data.people import admin, courier, staff
from mesh.stack.secrets import Secrets


def load(
    *,
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="The duration.")] = 30.0,
    orders: Annotated[int, typer.Option(min=0, max=100_000, help="Stop after so many orders too; 0: no limit.")] = 0,
    concurrency: Annotated[int, typer.Option(min=1, max=1000, help="The number of shoppers.")] = 8,
    mix: Annotated[Mix, typer.Option(help="The mix of their actions.")] = Mix.shop,
    rate: Annotated[
        float,
        typer.Option(min=0, max=1000, help="Actions begun each second; 0: as many as the shoppers can."),
    ] = 0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same choices.")] = 1,
    history: Annotated[
        Path | None, typer.Option(help="The file for the history of requests.", show_default="with the logs")
    ] = None,
    json: AsJson = False,
    state_dir: StateDir = None,
) -> None:
    """Run shoppers against the JSON edge. Exits with 0 whatever the outcomes; check them with `verify --history`."""
    record, state = running_stack(state_dir), state_in(state_dir)
    path = history or state.folder / "logs" / f"load-{time.strftime('%Y%m%dT%H%M%S')}.jsonl"
    secrets = Secrets(state)
    credentials = Credentials(staff(secrets), admin(secrets), courier(secrets), secrets.password("shoppers"))
    plan = Plan(mix=mix, concurrency=concurrency, seconds=seconds, orders=orders, seed=seed, rate=rate)
    with History.create(path) as lines, err.status("shopping"):
        summary = uvloop.run(run_load(record.edge, credentials, plan, lines))
    summary["history"] = str(path)
    if json:
        print_json(summary)
    else:
        _print_summary(summary)


def _print_summary(summary: dict[str, Any]) -> None:
    out.print(
        f"{summary['operations']} requests in {summary['seconds']:.1f} s by {summary['concurrency']} shoppers:"
        f" [bold]{summary['per_second']:.0f} a second[/]"
    )
    figures = ("count", "ok", "fail", "unknown", "p50_ms", "p90_ms", "p99_ms", "p100_ms")
    table = Table("request", box=None, pad_edge=False)
    for name in figures:
        table.add_column(name.replace("_ms", " ms").replace("p100", "max"), justify="right")
    for kind, row in summary["requests"].items():
        table.add_row(kind, *(str(row.get(name, "")) for name in figures))
    out.print(table)
    for what in ("orders", "seen", "reasons"):
        if counts := summary[what]:
            out.print(f"{what}: " + ", ".join(f"{number} {name}" for name, number in counts.items()))
    out.print(f"history: {summary['history']}", soft_wrap=True)
