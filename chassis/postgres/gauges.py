"""Gauges of a service's database: its pool, and the queries of a `gauges.sql`, read when the metrics are scraped."""

from functools import partial
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from chassis.metrics import Gauges, Reading
from chassis.postgres.database import Database, Queries


def add_database_gauges(gauges: Gauges, database: Database, service: str) -> None:
    """Add the gauges that every database has, and those of the package `service`, where there is one."""

    async def read_pool() -> Reading:
        size, idle = database.pool.get_size(), database.pool.get_idle_size()
        counts = {"used": size - idle, "idle": idle, "limit": database.pool.get_max_size()}
        return [({"state": state}, count) for state, count in counts.items()]

    gauges.add("db_pool_connections", "Connections to the database.", read_pool)
    folders = [Path(__file__).parent, *((Path(str(files(service))),) if find_spec(service) else ())]
    for folder in folders:
        if (path := folder / "gauges.sql").is_file():
            queries = Queries(path)
            for name in queries.names():
                query: str = getattr(queries, name)
                description = query.partition("\n")[0].removeprefix("-- ")
                gauges.add(name, description, partial(_read_query, database, query))


async def _read_query(database: Database, query: str) -> Reading:
    """Return the last column of each row as a value, labelled by the other columns."""
    async with database.connection() as connection:
        rows = [list(row.items()) for row in await connection.fetch(query)]
    return [({name: str(text) for name, text in labels}, float(value)) for *labels, (_, value) in rows]
