"""`shopmesh down`: stops a stack, and optionally deletes its data."""

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
from mesh.stack.state import ProcessRecord, Record, State

_STOP_SECONDS = 45.0  # a supervisor gives its processes 30


def down(
    *,
    wipe: Annotated[bool, typer.Option("--wipe", help="Also delete the stack's data, logs and secrets.")] = False,
    state_dir: StateDir = None,
) -> None:
    """Stop a stack, also the processes of one whose supervisor was killed."""
    state = state_in(state_dir)
    record = state.read()
    was_running = state.running
    if record and was_running:
        _stop(state, record)
    killed = orphans.remove(record) if record else []
    if wipe and state.exists:
        _wipe(state)
    if killed and not was_running:
        err.print(f"killed processes without a supervisor: {', '.join(killed)}")
    err.print("stopped" if was_running else "nothing was running")


def _stop(state: State, record: Record) -> None:
    """Stop the supervisor, and kill it when it does not stop. Raises StackError."""
    supervisor = record.supervisor
    assert supervisor.pid is not None
    for number in (signal.SIGTERM, signal.SIGKILL):
        if orphans.is_alive(supervisor):
            with suppress(ProcessLookupError):
                os.kill(supervisor.pid, number)
        until = time.monotonic() + _STOP_SECONDS
        while _is_running(state, supervisor) and time.monotonic() < until:
            time.sleep(0.03)
        if not _is_running(state, supervisor):
            return
    raise StackError(f"the supervisor in {state.folder} (pid {supervisor.pid}) does not stop")


def _is_running(state: State, supervisor: ProcessRecord) -> bool:
    """Return whether the supervisor has the lock, or released it but has not exited."""
    return state.running or orphans.is_alive(supervisor)


def _wipe(state: State) -> None:
    """Delete the stack's folder, and the database's data outside of it."""
    remove_data_dir(state.folder / "postgres")
    shutil.rmtree(state.folder)
