"""Stacks as users start them: by the command, in processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from mesh.stack.process import started_at
from mesh.stack.state import ProcessRecord, State

COMMAND = Path(sys.executable).with_name("shopmesh")
_SECONDS = 170


class Cli:
    """The command `shopmesh` for one stack."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.state = State(folder)
        self.environment = {**os.environ, "SHOPMESH_STATE_DIR": str(folder), **environment}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *arguments], env=self.environment, capture_output=True, text=True, timeout=_SECONDS, check=False
        )

    def json(self, *arguments: str):
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def up(self, *arguments: str):
        return self.json("up", "--detach", "--port-base", "0", "--no-sample-data", *arguments)

    def process(self, name: str) -> ProcessRecord:
        """Return the record of a process, which costs nothing: a command takes half a second of CPU."""
        record = self.state.read()
        assert record is not None
        return next(one for one in (record.supervisor, *record.processes) if one.name == name)

    @property
    def alive(self) -> list[str]:
        """The recorded processes that still run, the supervisor among them."""
        record = self.state.read()
        if record is None:
            return []
        return [
            one.name for one in (record.supervisor, *record.processes) if one.pid and started_at(one.pid) == one.started
        ]

    @property
    def listening(self) -> list[int]:
        """The ports of the stack's range on which anybody listens."""
        record = self.state.read()
        assert record is not None
        base = int(record.edge.rpartition(":")[2]) - 80
        return [
            one.laddr.port
            for one in psutil.net_connections("tcp")
            if one.status == psutil.CONN_LISTEN and base <= one.laddr.port < base + 100
        ]

    def kill(self, name: str) -> None:
        """End a process as a crash would."""
        pid = self.process(name).pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)


class CheckedOut(Cli):
    """The command, run from another checkout by this environment's Python."""

    def __init__(self, folder: Path, checkout: Path) -> None:
        super().__init__(folder, PYTHONPATH=f"{checkout}:{checkout / 'gen'}", PYTHONSAFEPATH="1")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "mesh", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )


def until(condition: Callable[[], object], seconds: float = 120, *, pause: float = 0.05) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true in time"
        time.sleep(pause)


def get(url: str) -> httpx.Response:
    return httpx.get(url, timeout=30, trust_env=False)


@contextmanager
def cleaned(cli: Cli):
    """Stop and delete the stack at the end of the test."""
    try:
        yield cli
    finally:
        cli.run("down", "--wipe")
