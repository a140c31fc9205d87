"""Servers that are as durable as real ones, in folders that are gone at the end."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from chassis.postgres.migrate import migrate
from mesh.stack.data_dirs import remove_data_dir
from mesh.stack.servers.postgres import Postgres

ROOT = Path(__file__).parents[1]


@contextmanager
def folder() -> Iterator[Path]:
    """A folder that also the account of PostgreSQL may pass, which does not run as root."""
    with tempfile.TemporaryDirectory(prefix="shopmesh-bench-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


@asynccontextmanager
async def durable_postgres(package: str) -> AsyncIterator[tuple[str, int]]:
    """The URL of a migrated database of a service, on a server that waits for its disk; and the server's pid."""
    with folder() as place:
        async with Postgres(place / "postgres") as server:
            await migrate(server.url, ROOT / package)
            yield server.url, int((server.data / "postmaster.pid").read_text().split()[0])
        remove_data_dir(place / "postgres")
