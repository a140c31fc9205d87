"""Injects faults into the processes of a running stack, and waits until they are ready again."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

import asyncpg

from mesh.errors import StackError
from mesh.qa.chaos.schedule import SIMULATED, Fault, Step
from mesh.qa.simulator_client import SimulatorClient
from mesh.stack.process import started_at
from mesh.stack.run import RESTART_SIGNAL
from mesh.stack.secrets import Secrets
from mesh.stack.servers.postgres import Postgres
from mesh.stack.state import ProcessRecord, Record, State

_POLL_SECONDS = 0.05
_READY_SECONDS = 120.0
_END_SESSIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE starts_with(usename, 'svc_') AND pid <> pg_backend_pid()"""


class Injection:
    """Injects the faults of one stack. Its methods raise StackError when a process does not come back."""

    def __init__(self, state: State, record: Record) -> None:
        self._state = state
        self._simulators = {
            one.name: SimulatorClient.of(record, Secrets(state), one.name)
            for one in record.processes
            if one.name in ("payment_provider", "courier")
        }
        self._postgres = Postgres(state.folder / "postgres", Path(record.run, "postgres"))
        self._methods: Mapping[Fault, Callable[[Step], Awaitable[None]]] = {
            Fault.kill: lambda step: self._signal(step.target, signal.SIGKILL),
            Fault.pause: self._pause,
            Fault.restart: self._restart,
            Fault.postgres_crash: lambda step: self._signal(step.target, signal.SIGQUIT),  # an immediate shutdown
            Fault.end_sessions: self._end_sessions,
            Fault.redis_stop: lambda step: self._signal(step.target, signal.SIGTERM),
        } | dict.fromkeys(SIMULATED, self._simulate)

    async def inject(self, step: Step) -> None:
        """Inject a fault; return when it has ended and its target is ready."""
        await self._methods[step.fault](step)

    def processes(self) -> list[ProcessRecord]:
        """Return the present processes. Raises StackError when the stack has stopped."""
        record = self._state.read()
        if record is None or not self._state.running:
            raise StackError("the stack has stopped", fix="see `shopmesh logs`")
        return record.processes

    async def _signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal that ends the process; the supervisor starts it again."""
        before = self._process(name)
        os.kill(_pid(before), number)
        await self._until(name, lambda now: now.restarts > before.restarts and now.state == "ready")

    async def _pause(self, step: Step) -> None:
        before = self._process(step.target)
        pid = _pid(before)
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(step.seconds)
        finally:
            if started_at(pid) == before.started:  # else it was killed because it did not answer
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        await self._until(step.target, lambda now: now.state == "ready")

    async def _restart(self, step: Step) -> None:
        """Replace a service as `shopmesh restart` does."""
        before, record = self._process(step.target), self._state.read()
        assert record is not None
        self._state.restart_request.write_text(step.target)
        os.kill(_pid(record.supervisor), RESTART_SIGNAL)
        await self._until(step.target, lambda now: now.pid not in (None, before.pid) and now.state == "ready")

    async def _end_sessions(self, step: Step) -> None:
        """Terminate every session of the services, and those that they open then."""
        for _ in range(3):
            connection = await asyncpg.connect(self._postgres.url, timeout=10)
            try:
                await connection.execute(_END_SESSIONS)
            finally:
                await connection.close()
            await asyncio.sleep(step.seconds / 3)

    async def _simulate(self, step: Step) -> None:
        simulator = self._simulators[step.target]
        await simulator.put("/v1/faults", dict(SIMULATED[step.fault]))
        try:
            await asyncio.sleep(step.seconds)
        finally:
            await simulator.put("/v1/faults", {})

    def _process(self, name: str) -> ProcessRecord:
        return next(one for one in self.processes() if one.name == name)

    async def _until(self, name: str, ready: Callable[[ProcessRecord], bool]) -> None:
        try:
            async with asyncio.timeout(_READY_SECONDS):
                while not ready(self._process(name)):  # noqa: ASYNC110  there is no notification
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise StackError(
                f"{name} is not ready {_READY_SECONDS:g} s after a fault", fix=f"see `shopmesh logs {name}`"
            ) from None


def _pid(process: ProcessRecord) -> int:
    if process.pid is None:
        raise StackError(f"{process.name} does not run", fix="see `shopmesh status`")
    return process.pid
