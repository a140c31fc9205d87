"""One program as a process: started, awaited, and stopped with everything that it started."""

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from mesh.errors import StackError
from mesh.stack import launch
from mesh.stack.data_dirs import Account
from mesh.stack.readiness import Probe, listens

_POLL = 0.03  # seconds between two checks of a condition without a notification
_REAP_SECONDS = 1.0  # within which the children of an ended process are reaped


@dataclass(frozen=True, kw_only=True)
class Program:
    """What to run, and how to check that it is ready."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: Runs before every start.
    prepare: Callable[[], Awaitable[None]] | None = None
    #: None marks a program that runs once, and is ready when it exits with 0.
    ready: Probe | None = None
    #: Whether the running process still answers; None for `ready`.
    alive: Probe | None = None
    #: Whether a successor can listen on its address (SO_REUSEPORT) before it stops.
    hands_over: bool = False
    #: The address that it listens on.
    address: str = ""
    #: Where its metrics are read, by GET /metrics.
    metrics: str = ""
    #: The programs that must be ready before this one starts.
    after: tuple[str, ...] = ()
    #: The account that it runs as; None for our own.
    account: Account | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    #: The signal that the kernel sends it when we are killed.
    orphan_signal: signal.Signals = signal.SIGKILL
    start_seconds: float = 30.0
    stop_seconds: float = 15.0
    #: How to fix a failed start.
    fix: str = ""


class Process:
    """The process of a program; `start` may be called again after its end."""

    def __init__(self, program: Program, log: Path) -> None:
        self.program = program
        self.log = log
        self._child: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """Its id; None before the first start."""
        return self._child.pid if self._child else None

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._child is not None and self._child.returncode is None

    async def start(self) -> None:
        """Start it through the launcher, in a process group of its own."""
        program = self.program
        if program.prepare:
            await program.prepare()
        launcher = (sys.executable, "-I", "-S", launch.__file__)
        with _append(self.log) as log:
            self._child = await asyncio.create_subprocess_exec(
                *launcher,
                str(os.getpid()),
                str(int(program.orphan_signal)),
                str(program.account or "-"),
                *program.argv,
                env=program.env,
                cwd="/",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                # A group of its own: Ctrl-C reaches only us, and we can signal everything that it starts.
                start_new_session=True,
            )

    async def until_ready(self) -> None:
        """Return when it is ready. Raises StackError when it ends instead, or takes too long."""
        try:
            async with asyncio.timeout(self.program.start_seconds):
                while not await self._is_ready():  # noqa: ASYNC110  there is no notification
                    await asyncio.sleep(_POLL)
        except TimeoutError:
            raise self._failure(f"is not ready after {self.program.start_seconds:g} s") from None

    async def until_listening(self) -> None:
        """Wait until it listens, also where another process does. Raises StackError when it does not in time."""
        assert self._child is not None, "never started"
        try:
            async with asyncio.timeout(self.program.start_seconds):
                while not listens(self._child.pid, self.program.address):
                    if self._child.returncode is not None:
                        raise self._failure(f"{_ending(self._child.returncode)} while starting")
                    await asyncio.sleep(_POLL)
        except TimeoutError:
            raise self._failure(f"does not listen after {self.program.start_seconds:g} s") from None

    async def until_ended(self) -> int:
        """Return its exit code, negative for a signal."""
        assert self._child is not None, "never started"
        return await self._child.wait()

    async def stop(self, seconds: float | None = None) -> None:
        """Signal it to stop, kill it after `seconds`, and kill what is left of its group."""
        if self._child is None:
            return
        if self._child.returncode is None:
            with suppress(ProcessLookupError):
                self._child.send_signal(self.program.stop_signal)
            with suppress(TimeoutError):
                async with asyncio.timeout(self.program.stop_seconds if seconds is None else seconds):
                    await self._child.wait()
        # The rest of its group may take a moment to end; a zombie that no process reaps counts as alive.
        with suppress(TimeoutError):
            async with asyncio.timeout(_REAP_SECONDS):
                while self.kill():  # noqa: ASYNC110  there is no notification
                    await asyncio.sleep(_POLL)
        await self._child.wait()

    def kill(self) -> bool:
        """Kill its process group; return whether any process was left."""
        if self._child is None:
            return False
        try:
            os.killpg(self._child.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    async def _is_ready(self) -> bool:
        assert self._child is not None, "never started"
        if self.program.ready is None:
            if code := await self._child.wait():
                raise self._failure(_ending(code))
            return True
        if self._child.returncode is not None:
            raise self._failure(f"{_ending(self._child.returncode)} while starting")
        return await self.program.ready()

    def _failure(self, what: str) -> StackError:
        return StackError(f"{self.program.name} {what}", fix=self.program.fix, log=tail(self.log))


@asynccontextmanager
async def running(program: Program, log: Path) -> AsyncIterator[Process]:
    """Run the program: ready inside the block, stopped at its end."""
    process = Process(program, log)
    try:
        await process.start()
        await process.until_ready()
        yield process
    finally:
        await process.stop()


def tail(log: Path, lines: int = 12) -> str:
    """Return the last lines of a log."""
    try:
        with log.open(encoding="utf-8", errors="replace") as file:
            return "".join(deque(file, lines)).rstrip()
    except FileNotFoundError:
        return ""


def started_at(pid: int) -> str | None:
    """Return the start time of a live process as the kernel prints it; pid and start time identify a process."""
    try:
        if sys.platform == "linux":
            # After the name in parentheses, which may contain any character: state is field 0, start time field 19.
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return None if stat[0] in "ZX" else stat[19]
        import psutil  # noqa: PLC0415  only where there is no /proc

        return str(psutil.Process(pid).create_time())
    except (OSError, ValueError, ProcessLookupError):
        return None


def _append(log: Path) -> BinaryIO:
    log.parent.mkdir(parents=True, exist_ok=True)
    return log.open("ab")


def _ending(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"stopped with exit code {code}"
