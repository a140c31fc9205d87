"""Runs one stack from start to stop: locks its folder, writes its record, handles signals, leaves no process behind.

`python -m mesh.stack.run FOLDER OPTIONS` is the background process of `up --detach`; OPTIONS is a JSON object.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mesh.errors import StackError
from mesh.stack import orphans
from mesh.stack.data_dirs import socket_folder, unprivileged_account
from mesh.stack.log_rotation import LogRotation
from mesh.stack.ports import Ports, free_base, require_free
from mesh.stack.process import started_at
from mesh.stack.scrapes import Scrapes, scrape
from mesh.stack.stack import Options, Stack
from mesh.stack.state import Phase, ProcessRecord, Record, State
from mesh.stack.supervisor import Supervisor

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Requests the replacement of the process that the state's `restart_request` names.
RESTART_SIGNAL = signal.SIGUSR1
_SCRAPE_SECONDS = 60.0


async def run_stack(options: Options, state: State, on_change: Callable[[Record], None]) -> None:
    """Start everything, and stop it at the first signal; `on_change` gets each new record. Raises StackError."""
    state.create()
    with state.hold():
        if old := state.read():
            orphans.remove(old)
        ports = Ports(options.port_base or free_base())
        with socket_folder(unprivileged_account()) as run:
            stack = Stack(options, state, ports, run)
            require_free(stack.listening)
            with ports.hold():
                await _StackRunner(stack, state, run, on_change).run()


class _StackRunner:
    """Runs a stack and keeps its record."""

    def __init__(self, stack: Stack, state: State, run: Path, on_change: Callable[[Record], None]) -> None:
        self._state = state
        self._on_change = on_change
        self._replacements: list[asyncio.Task[None]] = []
        self._stack = stack
        rotation = LogRotation(stack.options.log_megabytes * 1024 * 1024, stack.options.log_files)
        self._supervisor = Supervisor(
            stack.programs, state.log, self._write, probe_seconds=stack.options.probe_seconds, rotation=rotation
        )
        supervisor = ProcessRecord(name="supervisor", pid=os.getpid(), started=started_at(os.getpid()), state="ready")
        self._record = Record(
            phase="starting",
            supervisor=supervisor,
            edge=stack.entry,
            grpc=stack.grpc,
            services=stack.services,
            run=str(run),
            processes=self._supervisor.records,
        )

    async def run(self) -> None:
        """Run until a signal. Raises StackError when a program fails to start."""
        stop_requested = asyncio.Event()
        try:
            self._write()
            with self._signals(stop_requested):
                await self._serve(stop_requested)
        except StackError as error:
            self._enter("failed", str(error))
            raise
        else:
            self._enter("stopped")

    async def _serve(self, stop_requested: asyncio.Event) -> None:
        stop_task = asyncio.create_task(stop_requested.wait())
        starting = asyncio.create_task(self._supervisor.start())
        scraping: asyncio.Task[None] | None = None
        try:
            await asyncio.wait({stop_task, starting}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                self._enter("ready")
                scraping = asyncio.create_task(self._scrape())
                await stop_task
        finally:
            stop_task.cancel()
            starting.cancel()
            if scraping:
                scraping.cancel()
            self._enter("stopping")
            await asyncio.gather(starting, return_exceptions=True)
            await self._supervisor.stop()

    async def _scrape(self) -> None:
        """Store the metrics of all processes again and again."""
        scrapes = Scrapes(self._state.scrapes)
        scrapes.clear()
        while True:
            await asyncio.sleep(_SCRAPE_SECONDS)
            with suppress(OSError):  # such as a full disk; the next one may succeed
                scrapes.add(await asyncio.to_thread(scrape, self._record.processes))

    @contextmanager
    def _signals(self, stop_requested: asyncio.Event) -> Iterator[None]:
        """Stop at the first signal, kill at the second."""

        def on_signal() -> None:
            if stop_requested.is_set():
                self._supervisor.kill()
            stop_requested.set()

        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, on_signal)
        loop.add_signal_handler(RESTART_SIGNAL, lambda: self._replacements.append(loop.create_task(self._replace())))
        try:
            yield
        finally:
            for number in (*_SIGNALS, RESTART_SIGNAL):
                loop.remove_signal_handler(number)

    async def _replace(self) -> None:
        """Replace the process that the request names by a successor, and record why if that fails."""
        name = self._state.restart_request.read_text()
        try:
            await self._supervisor.replace(name)
        except StackError as error:
            self._enter(self._record.phase, str(error))

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
