"""`shopmesh load`: shoppers in a running stack, and what they met."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop
from rich.table import Table

from mesh.cli.terminal import AsJson, StateDir, err, out, print_json, running_stack, state_in
from mesh.qa.load.history import History
from mesh.qa.load.runner import Crew, Plan, run_load
from mesh.qa.load.shopper import Mix
from mesh.qa.sample_data.people import courier, staff
from mesh.stack.secrets import Secrets


def load(
    *,
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="How long.")] = 30.0,
    orders: Annotated[int, typer.Option(min=0, max=100_000, help="Stop after so many orders; 0: not before time.")] = 0,
    concurrency: Annotated[int, typer.Option(min=1, max=200, help="How many shoppers at the same time.")] = 8,
    mix: Annotated[Mix, typer.Option(help="What they do.")] = Mix.shop,
    seed: Annotated[int, typer.Option(help="The same one makes the same choices.")] = 1,
    history: Annotated[
        Path | None, typer.Option(help="Where to write down what they did.", show_default="among the logs")
    ] = None,
    json: AsJson = False,
    state_dir: StateDir = None,
) -> None:
    """Let shoppers loose on the JSON edge. Exits with 0 whatever they met; `verify --history` judges that."""
    record, state = running_stack(state_dir), state_in(state_dir)
    path = history or state.folder / "logs" / f"load-{time.strftime('%Y%m%dT%H%M%S')}.jsonl"
    secrets = Secrets(state)
    crew = Crew(staff(secrets), courier(secrets), secrets.password("shoppers"))
    plan = Plan(mix=mix, concurrency=concurrency, seconds=seconds, orders=orders, seed=seed)
    with History.create(path) as lines, err.status("shopping"):
        summary = uvloop.run(run_load(record.edge, crew, plan, lines))
    summary["history"] = str(path)
    if json:
        print_json(summary)
    else:
        _tell(summary)


def _tell(summary: dict[str, Any]) -> None:
    out.print(
        f"{summary['operations']} requests in {summary['seconds']:.1f} s by {summary['concurrency']} shoppers:"
        f" [bold]{summary['per_second']:.0f} a second[/]"
    )
    figures = ("count", "ok", "fail", "unknown", "p50_ms", "p90_ms", "p99_ms", "p100_ms")
    table = Table("request", box=None, pad_edge=False)
    for name in figures:
        table.add_column(name.replace("_ms", " ms").replace("p100", "max"), justify="right")
    for kind, told in summary["requests"].items():
        table.add_row(kind, *(str(told.get(name, "")) for name in figures))
    out.print(table)
    for what in ("orders", "reasons"):
        if told := summary[what]:
            out.print(f"{what}: " + ", ".join(f"{number} {name}" for name, number in told.items()))
    out.print(f"history: {summary['history']}", soft_wrap=True)
