"""`shopmesh logs`: prints the logs of one or all processes of a stack."""

import sys
import time
from collections import deque
from pathlib import Path
from typing import Annotated

import typer

from mesh.cli.terminal import StateDir, state_in
from mesh.errors import StackError

_POLL_SECONDS = 0.2


def logs(
    name: Annotated[str | None, typer.Argument(help="A process of `status`; all by default.")] = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow the logs.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="The number of last lines of each.")] = 100,
    state_dir: StateDir = None,
) -> None:
    """Show the logs of processes."""
    folder = state_in(state_dir).folder / "logs"
    files = sorted(folder.glob("*.log"))
    if name:
        files = [file for file in files if file.stem == name]
        if not files:
            known = ", ".join(sorted(file.stem for file in folder.glob("*.log"))) or "none yet"
            raise StackError(f"there is no log of {name}", fix=f"the logs are: {known}")
    width = 0 if name else max((len(file.stem) for file in files), default=0)
    seen = {file: _print_end(file, lines, width) for file in files}
    if follow:
        _follow(seen, width)


def _print_end(file: Path, lines: int, width: int) -> int:
    """Print the last lines; return the offset of their end."""
    with file.open("rb") as log:
        end = b"".join(deque(log, lines))
        _print(file, end.decode(errors="replace").rstrip() + "\n", width)
        return log.tell()


def _follow(seen: dict[Path, int], width: int) -> None:
    """Print new whole lines until interrupted."""
    try:
        while True:
            for file, at in seen.items():
                with file.open("rb") as log:
                    start = log.seek(at if at <= file.stat().st_size else 0)  # smaller: it was rotated
                    new, newline, _ = log.read().rpartition(b"\n")
                    seen[file] = start + len(new) + len(newline)
                _print(file, (new + newline).decode(errors="replace"), width)
            time.sleep(_POLL_SECONDS)
    except KeyboardInterrupt:
        return


def _print(file: Path, text: str, width: int) -> None:
    label = f"{file.stem:{width}} | " if width else ""
    sys.stdout.writelines(label + line for line in text.splitlines(keepends=True) if line.strip())
    sys.stdout.flush()
