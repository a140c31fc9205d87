"""What commands share: the option for the stack, and their output. Results go to stdout, everything else to stderr."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from mesh.errors import StackError
from mesh.stack.state import Record, State

StateDir = Annotated[
    Path | None,
    typer.Option(
        help="The stack's folder; several stacks run side by side in several folders.",
        envvar="SHOPMESH_STATE_DIR",
        show_default="shopmesh in your state folder",
        file_okay=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

#: Wide when it is no terminal, so that no line is cut.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
err = Console(stderr=True, highlight=False)


def state_in(folder: Path | None) -> State:
    """Return the state in the folder, or in the default folder."""
    return State(folder or State.default_folder())


def running_stack(folder: Path | None) -> Record:
    """Return the record of the stack in this folder. Raises StackError when none is ready."""
    state = state_in(folder)
    record = state.read()
    if record is None or not state.running or record.phase != "ready":
        raise StackError(f"no stack is ready in {state.folder}", fix="start one with `shopmesh up`")
    return record


def print_json(content: Any) -> None:
    """Print an object as JSON."""
    out.file.write(json.dumps(content, indent=2) + "\n")
    out.file.flush()


def print_error(error: StackError) -> None:
    """Print the error and its fix."""
    err.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
