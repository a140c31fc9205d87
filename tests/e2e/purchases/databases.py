"""Direct connections to the databases of a stack."""

from contextlib import asynccontextmanager

import asyncpg

from mesh.stack.servers.postgres import Postgres


@asynccontextmanager
async def database(stack, name):
    """A connection that may do anything."""
    run = stack.state.read().run
    connection = await asyncpg.connect(Postgres(stack.folder / "postgres", f"{run}/postgres").url, database=name)
    try:
        yield connection
    finally:
        await connection.close()
