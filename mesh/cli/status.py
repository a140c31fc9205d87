"""`shopmesh status`: lists the processes of a stack, and the alerts that fire."""

from collections.abc import Sequence

import typer
from rich.markup import escape
from rich.table import Table

from mesh.alerts.rules import Firing, firing
from mesh.alerts.scraping import samples, verified
from mesh.cli.terminal import AsJson, StateDir, out, print_json, state_in
from mesh.stack.scrapes import Scrapes, scrape
from mesh.stack.state import Record, State

_NOT_RUNNING = 3  # the status of init scripts
_COLOURS = {"ready": "green", "starting": "yellow", "restarting": "red", "stopping": "yellow"}


def status(*, json: AsJson = False, state_dir: StateDir = None) -> None:
    """Show the processes, their addresses and restarts, and the alerts that fire. Exits with 3 when no stack runs."""
    state = state_in(state_dir)
    record = current(state)
    alerts = _alerts(state, record) if record and record.phase == "ready" else []
    if json:
        stopped = {"state": "stopped", "processes": []}
        print_json((record.public() if record else stopped) | {"alerts": [_as_json(one) for one in alerts]})
    elif record is None:
        out.print(f"no stack runs in {state.folder}")
    else:
        out.print(f"[bold]{record.phase}[/]  {record.edge}", table(record), sep="\n")
        print_alerts(alerts)
    if record is None:
        raise typer.Exit(_NOT_RUNNING)


def current(state: State) -> Record | None:
    """Return the record of the running stack; None when none runs."""
    return state.read() if state.running else None


def _alerts(state: State, record: Record) -> list[Firing]:
    found = samples(record.processes, Scrapes(state.scrapes).oldest(), scrape(record.processes))
    return firing(found + verified(state))


def print_alerts(alerts: Sequence[Firing]) -> None:
    """Print a red line for each alert."""
    for one in alerts:
        labels = " ".join(f"{name}={value}" for name, value in one.labels)
        text = escape(f"{one.alert.name}: {one.alert.summary} {labels} ({one.value:.3g})")
        out.print(f"[red]✗ {text}[/]", soft_wrap=True)


def _as_json(one: Firing) -> dict[str, object]:
    return {"name": one.alert.name, "labels": dict(one.labels), "value": one.value, "summary": one.alert.summary}


def table(record: Record) -> Table:
    """Return the processes as a table."""
    it = Table("process", "state", "pid", "address", "restarts", box=None, pad_edge=False)
    for one in record.processes:
        colour = _COLOURS.get(one.state, "dim")
        it.add_row(one.name, f"[{colour}]{one.state}[/]", str(one.pid or ""), one.address, str(one.restarts or ""))
    return it
