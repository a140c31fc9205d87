"""Supervises programs: starts each after its dependencies, restarts those that die or hang, stops all in reverse."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from mesh.errors import StackError
from mesh.stack.log_rotation import LogRotation
from mesh.stack.process import Process, Program, started_at
from mesh.stack.readiness import Probe
from mesh.stack.state import ProcessRecord

_FIRST_BACKOFF = 0.1  # seconds before the first restart; doubled for each further one
_MAX_BACKOFF = 5.0
_HEALTHY_SECONDS = 10.0  # after which the backoff starts again
_STOP_SECONDS = 30.0  # for all together; then they are killed
_PROBE_FAILURES = 3  # in a row, after which a running process counts as hung
_PROBE_LIMIT = 3.0  # seconds for one liveness probe
_ROTATION_SECONDS = 2.0  # between two looks at the sizes of logs


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
        self,
        programs: Sequence[Program],
        log: Callable[[str], Path],
        on_change: Callable[[], None] = lambda: None,
        *,
        probe_seconds: float = 5.0,
        rotation: LogRotation | None = None,
    ) -> None:
        """`log` returns the log file of a program; `on_change` is called after every change of a record.

        A running program is probed every `probe_seconds`, 0 for never; one that fails three in a row is killed.
        """
        self._probe_seconds = probe_seconds
        self._rotation = rotation
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
        if self._rotation:
            self._watchers.append(asyncio.create_task(self._rotate_logs(self._rotation)))
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
            ready, process = clock(), supervised.process
            liveness = asyncio.create_task(self._kill_when_hung(supervised.program, process))
            try:
                await process.until_ended()
            finally:
                liveness.cancel()
            if supervised.process is not process:
                continue  # a successor has taken over
            if clock() - ready > _HEALTHY_SECONDS:
                supervised.backoff = _FIRST_BACKOFF
            await self._restart(supervised)

    async def _kill_when_hung(self, program: Program, process: Process) -> None:
        """Kill the process when it has failed several probes in a row; its end restarts it."""
        probe = program.alive or program.ready
        assert probe is not None, "only long-running programs are watched"
        if not self._probe_seconds:
            return
        failures = 0
        while failures < _PROBE_FAILURES:
            await asyncio.sleep(self._probe_seconds)
            failures = 0 if await _answers(probe) else failures + 1
        process.kill()

    async def replace(self, name: str) -> None:
        """Replace a running program by a successor that listens on the same address before the other stops.

        Raises StackError when it cannot be replaced, or when the successor does not start; the other then goes on.
        """
        supervised = self._processes.get(name)
        if supervised is None or not supervised.program.hands_over or supervised.record.state != "ready":
            raise StackError(f"{name} is not a running service")
        old, successor = supervised.process, Process(supervised.program, supervised.process.log)
        try:
            await successor.start()
            await successor.until_listening()
        except BaseException:
            await successor.stop(0)
            raise
        supervised.process = successor
        self._set_state(supervised, "ready")
        await old.stop()

    async def _rotate_logs(self, rotation: LogRotation) -> None:
        while True:
            for supervised in self._processes.values():
                with suppress(OSError):  # such as a full disk; the next look may succeed
                    await asyncio.to_thread(rotation.rotate, supervised.process.log)
            await asyncio.sleep(_ROTATION_SECONDS)

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


async def _answers(probe: Probe) -> bool:
    try:
        async with asyncio.timeout(_PROBE_LIMIT):
            return await probe()
    except StackError:
        return True  # an answer that says more than its absence
    except (TimeoutError, OSError):
        return False
