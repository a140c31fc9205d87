"""`shopmesh chaos`: injects faults into a running stack under load, and verifies what is left."""

import random
import time
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop
from rich.table import Table

from mesh.cli.terminal import AsJson, StateDir, err, out, print_json, running_stack, state_in
from mesh.qa.chaos.runner import ChaosPlan, Injected, run_chaos
from mesh.qa.chaos.schedule import Fault
from mesh.qa.load.runner import Credentials
from mesh.qa.sample_data.people import admin, courier, staff
from mesh.stack.secrets import Secrets


def chaos(
    *,
    seconds: Annotated[
        float, typer.Option(min=1, max=7200, help="For how long to inject faults, at least one.")
    ] = 60.0,
    seed: Annotated[
        int | None, typer.Option(help="The same seed gives the same faults.", show_default="a random one")
    ] = None,
    only: Annotated[list[Fault] | None, typer.Option(help="Only this fault; may be repeated.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=200, help="The number of shoppers.")] = 4,
    wait: Annotated[
        float, typer.Option("--wait", min=0, metavar="SECONDS", help="How long to wait for orders to end.")
    ] = 90.0,
    history: Annotated[
        Path | None, typer.Option(help="The file for the history of requests.", show_default="with the logs")
    ] = None,
    json: AsJson = False,
    state_dir: StateDir = None,
) -> None:
    """Kill, stop and restart what runs, under load. Exits with 1 if an invariant is violated afterwards."""
    record, state = running_stack(state_dir), state_in(state_dir)
    path = history or state.folder / "logs" / f"chaos-{time.strftime('%Y%m%dT%H%M%S')}.jsonl"
    secrets = Secrets(state)
    credentials = Credentials(staff(secrets), admin(secrets), courier(secrets), secrets.password("shoppers"))
    plan = ChaosPlan(
        seconds=seconds,
        seed=random.randrange(1_000_000) if seed is None else seed,  # noqa: S311  reproducible, guards nothing
        concurrency=concurrency,
        history=path,
        only=only or (),
        wait=wait,
    )
    err.print(f"seed {plan.seed}")
    report = uvloop.run(run_chaos(state, record, credentials, plan, _print_fault))
    report["history"] = str(path)
    if json:
        print_json(report)
    else:
        _print_report(report)
    if not report["ok"]:
        raise typer.Exit(1)


def _print_fault(one: Injected) -> None:
    err.print(f"{one.at:6.1f} s  {one.step.fault} {one.step.target}: served after {one.served:.1f} s")


def _print_report(report: dict[str, Any]) -> None:
    table = Table("fault", "times", "longest until served", box=None, pad_edge=False)
    for fault, figures in sorted(report["recovery"].items()):
        table.add_row(fault, str(figures["count"]), f"{figures['longest_seconds']:.1f} s")
    out.print(table)
    load = report["load"]
    for what, counts in (("orders", load["orders"]), ("seen", load["seen"]), ("reasons", load["reasons"])):
        if counts:
            out.print(f"{what}: " + ", ".join(f"{number} {name}" for name, number in counts.items()))
    if unready := report["unavailable_seconds"]:
        out.print("not ready: " + ", ".join(f"{name} {seconds:g} s" for name, seconds in unready.items()))
    for check in report["violated"]:
        out.print(f"[red]✗[/] {check['where']}: {check['name']}, {len(check['rows'])} rows, such as {check['rows'][0]}")
    verdict = "[bold green]all hold[/]" if report["ok"] else f"[bold red]{len(report['violated'])} are violated[/]"
    out.print(f"{len(report['faults'])} faults; of {report['invariants']} invariants {verdict}")
    only = "".join(f" --only {fault}" for fault in report["only"])
    out.print(f"the same faults again: shopmesh chaos --seconds {report['seconds']:g} --seed {report['seed']}{only}")
    out.print(f"history: {report['history']}", soft_wrap=True)
