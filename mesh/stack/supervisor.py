"""Supervises programs: starts each after its dependencies, restarts those that die, stops all in reverse order."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from mesh.errors import StackError
from mesh.stack.process import Process, Program, started_at
from mesh.stack.state import ProcessRecord

_FIRST_BACKOFF = 0.1  # seconds before the first restart; doubled for each further one
_MAX_BACKOFF = 5.0
_HEALTHY_SECONDS = 10.0  # after which the backoff starts again
_STOP_SECONDS = 30.0  # for all together; then they are killed


class SupervisedProcess:
    """One program under supervision."""

    def __init__(self, program: Program, log: Path) -> None:
        self.program = program
        self.process = Process(program, log)
        self.record = ProcessRecord(name=program.name, address=program.address, metrics=program.metrics)
        self.ready = asyncio.Event()
        self.stopped = asyncio.Event()
        self.backoff = _FIRST_BACKOFF

    @property
    def long_running(self) -> bool:
        """Whether it runs until the stack stops."""
        return self.program.ready is not None


class Supervisor:
    """Runs programs from their start to their stop."""

    def __init__(
        self, programs: Sequence[Program], log: Callable[[str], Path], on_change: Callable[[], None] = lambda: None
    ) -> None:
        """`log` returns the log file of a program; `on_change` is called after every change of a record."""
        self._processes = {program.name: SupervisedProcess(program, log(program.name)) for program in programs}
        self._on_change = on_change
        self._watchers: list[asyncio.Task[None]] = []

    @property
    def records(self) -> list[ProcessRecord]:
        """The records of the long-running programs."""
        return [supervised.record for supervised in self._processes.values() if supervised.long_running]

    @property
    def busy(self) -> list[str]:
        """The programs that are being started or stopped."""
        return [
            name for name, supervised in self._processes.items() if supervised.record.state in ("starting", "stopping")
        ]

    async def start(self) -> None:
        """Start everything and return when it is ready. Raises the StackError of the first program that fails."""
        try:
            async with asyncio.TaskGroup() as group:
                for supervised in self._processes.values():
                    group.create_task(self._start_in_order(supervised))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def stop(self) -> None:
        """Stop everything, each program after its dependents; kill those that do not stop in time."""
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await asyncio.gather(*(self._end(supervised) for supervised in self._processes.values()))
        except TimeoutError:
            self.kill()
            await asyncio.gather(*(supervised.process.stop(0) for supervised in self._processes.values()))

    def kill(self) -> None:
        """Kill everything."""
        for supervised in self._processes.values():
            supervised.process.kill()

    async def _start_in_order(self, supervised: SupervisedProcess) -> None:
        for name in supervised.program.after:
            await self._processes[name].ready.wait()
        await self._start(supervised, "starting")
        supervised.ready.set()
        if supervised.long_running:
            self._watchers.append(asyncio.create_task(self._watch(supervised)))

    async def _watch(self, supervised: SupervisedProcess) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            ready = clock()
            await supervised.process.until_ended()
            if clock() - ready > _HEALTHY_SECONDS:
                supervised.backoff = _FIRST_BACKOFF
            await self._restart(supervised)

    async def _restart(self, supervised: SupervisedProcess) -> None:
        while True:
            # What is left of the group of a dead process may still listen on its port.
            await supervised.process.stop(0)
            supervised.record.restarts += 1
            self._set_state(supervised, "restarting")
            await asyncio.sleep(supervised.backoff)
            supervised.backoff = min(supervised.backoff * 2, _MAX_BACKOFF)
            with suppress(StackError, OSError):
                return await self._start(supervised, "restarting")

    async def _start(self, supervised: SupervisedProcess, state: str) -> None:
        self._set_state(supervised, state)
        await supervised.process.start()
        self._set_state(supervised, state)
        await supervised.process.until_ready()
        self._set_state(supervised, "ready")

    async def _end(self, supervised: SupervisedProcess) -> None:
        for other in self._processes.values():
            if supervised.program.name in other.program.after:
                await other.stopped.wait()
        if supervised.process.running:
            self._set_state(supervised, "stopping")
        await supervised.process.stop()
        self._set_state(supervised, "stopped")
        supervised.stopped.set()

    def _set_state(self, supervised: SupervisedProcess, state: str) -> None:
        record = supervised.record
        record.state = state
        record.pid = supervised.process.pid if supervised.process.running else None
        record.started = started_at(record.pid) if record.pid else None
        self._on_change()
