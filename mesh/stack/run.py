"""Runs one stack from start to end: holds its folder, writes its record, obeys signals, leaves nothing behind.

`python -m mesh.stack.run FOLDER OPTIONS` does so in the background; OPTIONS is a JSON object.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mesh.errors import StackError
from mesh.stack import orphans
from mesh.stack.data_dirs import socket_folder, unprivileged_account
from mesh.stack.ports import Ports, free_base, require_free
from mesh.stack.process import started_at
from mesh.stack.stack import Options, Stack
from mesh.stack.state import Phase, ProcessRecord, Record, State
from mesh.stack.supervisor import Supervisor

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def run_stack(options: Options, state: State, on_change: Callable[[Record], None]) -> None:
    """Start everything, and stop it at the first signal; `on_change` sees each record as it is written."""
    state.create()
    with state.hold():
        if old := state.read():
            orphans.remove(old)
        ports = Ports(options.port_base or free_base())
        with socket_folder(unprivileged_account()) as run:
            stack = Stack(options, state, ports, run)
            require_free(stack.listening)
            with ports.hold():
                await _Life(stack, state, run, on_change).live()


class _Life:
    """One stack's life, and the record of it."""

    def __init__(self, stack: Stack, state: State, run: Path, on_change: Callable[[Record], None]) -> None:
        self._state = state
        self._on_change = on_change
        self._stack = stack
        self._supervisor = Supervisor(stack.programs, state.log, self._write)
        ourselves = ProcessRecord(name="supervisor", pid=os.getpid(), started=started_at(os.getpid()), state="ready")
        self._record = Record(
            phase="starting",
            supervisor=ourselves,
            edge=stack.entry,
            grpc=stack.grpc,
            services=stack.services,
            run=str(run),
            processes=self._supervisor.records,
        )

    async def live(self) -> None:
        stopping = asyncio.Event()
        try:
            self._write()
            with self._signals(stopping):
                await self._serve(stopping)
        except StackError as error:
            self._enter("failed", str(error))
            raise
        else:
            self._enter("stopped")

    async def _serve(self, stopping: asyncio.Event) -> None:
        asked = asyncio.create_task(stopping.wait())
        starting = asyncio.create_task(self._supervisor.start())
        try:
            await asyncio.wait({asked, starting}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                self._enter("ready")
                await asked
        finally:
            asked.cancel()
            starting.cancel()
            self._enter("stopping")
            await asyncio.gather(starting, return_exceptions=True)
            await self._supervisor.stop()

    @contextmanager
    def _signals(self, stopping: asyncio.Event) -> Iterator[None]:
        """The first signal asks for a stop, the second for an end at once."""

        def on_signal() -> None:
            if stopping.is_set():
                self._supervisor.kill()
            stopping.set()

        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, on_signal)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    def _enter(self, phase: Phase, problem: str = "") -> None:
        self._record.phase = phase
        self._record.problem = problem
        self._write()

    def _write(self) -> None:
        self._record.busy = self._supervisor.busy
        self._state.write(self._record)
        self._on_change(self._record)


if __name__ == "__main__":
    try:
        asyncio.run(run_stack(Options(**json.loads(sys.argv[2])), State(Path(sys.argv[1])), lambda _: None))
    except StackError as error:
        sys.exit(str(error))
