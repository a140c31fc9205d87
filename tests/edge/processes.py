"""Starts the edge and its back end as processes, as users do."""

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
_DEADLINE = 60.0


@contextlib.contextmanager
def process(*command: str, ready: str, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run a Python module until the block ends; yield it and the match of the pattern `ready` in its output."""
    with program(sys.executable, "-m", *command, ready=ready, log=log) as started:
        yield started


@contextlib.contextmanager
def program(*command: str, ready: str, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run any program, as `process` does."""
    with log.open("wb") as out:
        running = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out)
    try:
        yield running, _await(running, re.compile(ready), log)
    finally:
        running.terminate()
        try:
            running.wait(_DEADLINE)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def _await(running: subprocess.Popen[bytes], ready: re.Pattern[str], log: Path) -> str:
    deadline = time.monotonic() + _DEADLINE
    while time.monotonic() < deadline and running.poll() is None:
        found = ready.search(log.read_text())
        if found is not None:
            return found[1]
        time.sleep(0.02)
    raise RuntimeError(f"{running.args} did not start:\n{log.read_text()}")


@contextlib.contextmanager
def library(modules: Path, log: Path) -> Iterator[int]:
    """Start the back end; yield its port."""
    command = ("tests.edge.library", str(modules), "127.0.0.1:0")
    with process(*command, ready=r"(?m)^(\d+)$", log=log) as (_, port):
        yield int(port)


@contextlib.contextmanager
def edge(log: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Start the edge; yield its process and port."""
    command = ("edge_gateway", "--listen", "127.0.0.1:0", *options)
    with process(*command, ready=r"routes on http://127\.0\.0\.1:(\d+)", log=log) as (running, port):
        yield running, int(port)
