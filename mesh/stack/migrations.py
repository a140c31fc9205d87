"""Brings all databases up to date. `python -m mesh.stack.migrations` reads MIGRATIONS: the URL of each service."""

import asyncio
import json
import os
import sys
from importlib.resources import files
from pathlib import Path

import asyncpg

from chassis.postgres.migrate import MigrationError, migrate


async def migrate_all(urls: dict[str, str]) -> None:
    """Migrate each service's database with the migrations of its folder; raises ExceptionGroup."""
    async with asyncio.TaskGroup() as group:
        for service, url in urls.items():
            group.create_task(migrate(url, Path(str(files(service)))))


if __name__ == "__main__":
    try:
        asyncio.run(migrate_all(json.loads(os.environ["MIGRATIONS"])))
    except* (MigrationError, OSError, asyncpg.PostgresError) as problems:
        sys.exit("; ".join(str(problem) for problem in problems.exceptions))
