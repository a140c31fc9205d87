"""One program as a running process: started, waited for, stopped with everything that it started."""

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
from mesh.stack.readiness import Probe

_POLL = 0.03  # seconds between two looks at a condition that nothing announces
_COLLECTED = 1.0  # seconds in which the children of an ended process are collected, too


@dataclass(frozen=True, kw_only=True)
class Program:
    """What to run, and how to know that it does its work."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: Runs before every start.
    prepare: Callable[[], Awaitable[None]] | None = None
    #: None marks a program that is meant to end, and is ready when it ended well.
    ready: Probe | None = None
    #: Where it can be called.
    address: str = ""
    #: The programs that must be ready before this one starts.
    after: tuple[str, ...] = ()
    #: Whom it runs as, when not as ourselves.
    account: Account | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    #: What the kernel sends it when we die without a chance to stop it.
    orphan_signal: signal.Signals = signal.SIGKILL
    start_seconds: float = 30.0
    stop_seconds: float = 15.0
    #: What a reader may do when it does not start.
    fix: str = ""


class Process:
    """A program's one process; `start` may be called again after its end."""

    def __init__(self, program: Program, log: Path) -> None:
        self.program = program
        self.log = log
        self._child: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.returncode is None

    async def start(self) -> None:
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
                # A group of its own: Ctrl-C reaches only us, and we reach all that it starts.
                start_new_session=True,
            )

    async def until_ready(self) -> None:
        """Return when it does its work; StackError when it ends instead, or takes too long."""
        try:
            async with asyncio.timeout(self.program.start_seconds):
                while not await self._is_ready():  # noqa: ASYNC110  nothing announces it
                    await asyncio.sleep(_POLL)
        except TimeoutError:
            raise self._failure(f"is not ready after {self.program.start_seconds:g} s") from None

    async def until_ended(self) -> int:
        """Return its exit code; negative for the signal that ended it."""
        assert self._child is not None, "never started"
        return await self._child.wait()

    async def stop(self, seconds: float | None = None) -> None:
        """Ask it to stop, insist after `seconds`, and leave nothing of its group behind."""
        if self._child is None:
            return
        if self._child.returncode is None:
            with suppress(ProcessLookupError):
                self._child.send_signal(self.program.stop_signal)
            with suppress(TimeoutError):
                async with asyncio.timeout(self.program.stop_seconds if seconds is None else seconds):
                    await self._child.wait()
        # What it left of its group may take a moment to end; a dead one that nobody collects counts as there.
        with suppress(TimeoutError):
            async with asyncio.timeout(_COLLECTED):
                while self.kill():  # noqa: ASYNC110  nothing announces it
                    await asyncio.sleep(_POLL)
        await self._child.wait()

    def kill(self) -> bool:
        """End its whole group at once; whether there was anything to end."""
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
    """The program, ready inside and stopped at the end."""
    process = Process(program, log)
    try:
        await process.start()
        await process.until_ready()
        yield process
    finally:
        await process.stop()


def tail(log: Path, lines: int = 12) -> str:
    """The end of a log, as text."""
    try:
        with log.open(encoding="utf-8", errors="replace") as file:
            return "".join(deque(file, lines)).rstrip()
    except FileNotFoundError:
        return ""


def started_at(pid: int) -> str | None:
    """When a live process started, in the kernel's own words; with its pid this names it for ever."""
    try:
        if sys.platform == "linux":
            # After the name in parentheses, which may hold anything: state is field 0, start time field 19.
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
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"stopped with exit code {code}"
