"""Keeps programs running: starts each after those that it needs, restarts what dies, stops all in reverse."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from mesh.errors import StackError
from mesh.stack.process import Process, Program, started_at
from mesh.stack.state import ProcessRecord

_FIRST_PAUSE = 0.1  # seconds before the first restart; doubled for each one that follows closely
_LONGEST_PAUSE = 5.0
_STEADY = 10.0  # seconds after which a process counts as healthy again
_STOP_SECONDS = 30.0  # for all together; afterwards what is left is killed


class Unit:
    """One program under supervision."""

    def __init__(self, program: Program, log: Path) -> None:
        self.program = program
        self.process = Process(program, log)
        self.record = ProcessRecord(name=program.name, address=program.address)
        self.ready = asyncio.Event()
        self.ended = asyncio.Event()
        self.pause = _FIRST_PAUSE

    @property
    def lasting(self) -> bool:
        """Whether it is meant to run until the stack stops."""
        return self.program.ready is not None


class Supervisor:
    """Runs programs from the first start to the last stop."""

    def __init__(
        self, programs: Sequence[Program], log: Callable[[str], Path], changed: Callable[[], None] = lambda: None
    ) -> None:
        """`log` names the log of each; `changed` is called after every change of a record."""
        self._units = {program.name: Unit(program, log(program.name)) for program in programs}
        self._changed = changed
        self._keepers: list[asyncio.Task[None]] = []

    @property
    def records(self) -> list[ProcessRecord]:
        """The lasting programs; those that run once are nobody's concern afterwards."""
        return [unit.record for unit in self._units.values() if unit.lasting]

    @property
    def busy(self) -> list[str]:
        """Whatever is being started or stopped."""
        return [name for name, unit in self._units.items() if unit.record.state in ("starting", "stopping")]

    async def start(self) -> None:
        """Return when everything is ready; StackError as soon as something cannot be."""
        try:
            async with asyncio.TaskGroup() as group:
                for unit in self._units.values():
                    group.create_task(self._bring_up(unit))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def stop(self) -> None:
        """Stop everything, each after those that need it; kill what does not stop in time."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await asyncio.gather(*(self._end(unit) for unit in self._units.values()))
        except TimeoutError:
            self.kill()
            await asyncio.gather(*(unit.process.stop(0) for unit in self._units.values()))

    def kill(self) -> None:
        """End everything at once."""
        for unit in self._units.values():
            unit.process.kill()

    async def _bring_up(self, unit: Unit) -> None:
        for name in unit.program.after:
            await self._units[name].ready.wait()
        await self._start(unit, "starting")
        unit.ready.set()
        if unit.lasting:
            self._keepers.append(asyncio.create_task(self._keep(unit)))

    async def _keep(self, unit: Unit) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            ready = clock()
            await unit.process.until_ended()
            if clock() - ready > _STEADY:
                unit.pause = _FIRST_PAUSE
            await self._restart(unit)

    async def _restart(self, unit: Unit) -> None:
        while True:
            # Whatever a dead leader left of its group would keep its port.
            await unit.process.stop(0)
            unit.record.restarts += 1
            self._note(unit, "restarting")
            await asyncio.sleep(unit.pause)
            unit.pause = min(unit.pause * 2, _LONGEST_PAUSE)
            with suppress(StackError, OSError):
                return await self._start(unit, "restarting")

    async def _start(self, unit: Unit, state: str) -> None:
        self._note(unit, state)
        await unit.process.start()
        self._note(unit, state)
        await unit.process.until_ready()
        self._note(unit, "ready")

    async def _end(self, unit: Unit) -> None:
        for other in self._units.values():
            if unit.program.name in other.program.after:
                await other.ended.wait()
        if unit.process.running:
            self._note(unit, "stopping")
        await unit.process.stop()
        self._note(unit, "stopped")
        unit.ended.set()

    def _note(self, unit: Unit, state: str) -> None:
        record = unit.record
        record.state = state
        record.pid = unit.process.pid if unit.process.running else None
        record.started = started_at(record.pid) if record.pid else None
        self._changed()
