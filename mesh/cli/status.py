"""`shopmesh status`: lists the processes of a stack."""

import typer
from rich.table import Table

from mesh.cli.terminal import AsJson, StateDir, out, print_json, state_in
from mesh.stack.state import Record, State

_NOT_RUNNING = 3  # the status of init scripts
_COLOURS = {"ready": "green", "starting": "yellow", "restarting": "red", "stopping": "yellow"}


def status(*, json: AsJson = False, state_dir: StateDir = None) -> None:
    """Show the processes, their addresses and restarts. Exits with 3 when no stack runs."""
    state = state_in(state_dir)
    record = current(state)
    if json:
        print_json(record.public() if record else {"state": "stopped", "processes": []})
    elif record is None:
        out.print(f"no stack runs in {state.folder}")
    else:
        out.print(f"[bold]{record.phase}[/]  {record.edge}", table(record), sep="\n")
    if record is None:
        raise typer.Exit(_NOT_RUNNING)


def current(state: State) -> Record | None:
    """Return the record of the running stack; None when none runs."""
    return state.read() if state.running else None


def table(record: Record) -> Table:
    """Return the processes as a table."""
    it = Table("process", "state", "pid", "address", "restarts", box=None, pad_edge=False)
    for one in record.processes:
        colour = _COLOURS.get(one.state, "dim")
        it.add_row(one.name, f"[{colour}]{one.state}[/]", str(one.pid or ""), one.address, str(one.restarts or ""))
    return it
