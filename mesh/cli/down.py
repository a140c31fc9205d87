"""`shopmesh down`: stops a stack, whoever started it, and on request forgets its data."""

import os
import shutil
import signal
import time
from contextlib import suppress
from typing import Annotated

import typer

from mesh.cli.terminal import StateDir, err, state_in
from mesh.errors import StackError
from mesh.stack import orphans
from mesh.stack.data_dirs import remove_data_dir
from mesh.stack.state import Record, State

_PATIENCE = 45.0  # seconds; a supervisor gives its processes 30


def down(
    *,
    wipe: Annotated[bool, typer.Option("--wipe", help="Also delete the stack's data, logs and secrets.")] = False,
    state_dir: StateDir = None,
) -> None:
    """Stop a stack and whatever a killed one left running."""
    state = state_in(state_dir)
    record = state.read()
    ran = state.running
    if record and ran:
        _stop(state, record)
    left = orphans.remove(record) if record else []
    if wipe and state.exists:
        _wipe(state)
    if left and not ran:
        err.print(f"ended what a killed stack had left: {', '.join(left)}")
    err.print("stopped" if ran else "nothing was running")


def _stop(state: State, record: Record) -> None:
    """Ask the supervisor to stop, and insist when it does not."""
    supervisor = record.supervisor
    assert supervisor.pid is not None
    for number in (signal.SIGTERM, signal.SIGKILL):
        if orphans.is_alive(supervisor):
            with suppress(ProcessLookupError):
                os.kill(supervisor.pid, number)
        until = time.monotonic() + _PATIENCE
        while state.running and time.monotonic() < until:
            time.sleep(0.03)
        if not state.running:
            return
    raise StackError(f"the supervisor in {state.folder} (pid {supervisor.pid}) does not stop")


def _wipe(state: State) -> None:
    """Delete the stack's folder, and what the database keeps elsewhere."""
    remove_data_dir(state.folder / "postgres")
    shutil.rmtree(state.folder)
