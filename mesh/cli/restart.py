"""`shopmesh restart`: replaces a running service by a successor that takes over its calls."""

import os
import time
from typing import Annotated

import typer

from mesh.cli.terminal import StateDir, err, state_in
from mesh.errors import StackError
from mesh.stack.run import RESTART_SIGNAL
from mesh.stack.state import ProcessRecord, State

_SECONDS = 60.0


def restart(
    name: Annotated[str, typer.Argument(help="A service process of `status`, such as svc_order or svc_order-2.")],
    *,
    state_dir: StateDir = None,
) -> None:
    """Start a successor, which takes over its address, and then stop the running process: no call fails."""
    state = state_in(state_dir)
    record = state.read()
    before = _process(state, name)
    if record is None or record.supervisor.pid is None or not state.running or before is None:
        raise StackError(f"{name} is not running", fix="see `shopmesh status`")
    state.restart_request.write_text(name)
    os.kill(record.supervisor.pid, RESTART_SIGNAL)
    until = time.monotonic() + _SECONDS
    while (after := _process(state, name)) is None or after.pid in (None, before.pid):
        record = state.read()
        if record and record.problem:
            raise StackError(record.problem)
        if time.monotonic() > until:
            raise StackError(f"{name} was not replaced within {_SECONDS:g} s", fix=f"see `shopmesh logs {name}`")
        time.sleep(0.05)
    err.print(f"{name} is replaced")


def _process(state: State, name: str) -> ProcessRecord | None:
    record = state.read()
    return next((one for one in record.processes if one.name == name), None) if record else None
