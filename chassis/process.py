"""A service as a process: `python -m svc_x` serves until SIGTERM; `python -m svc_x migrate` updates its database."""

import asyncio
import json
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

import uvloop

from chassis import telemetry
from chassis.app import App, build, explain_setting
from chassis.postgres.migrate import MigrationError, migrate
from chassis.settings import Settings, SettingsError

log = logging.getLogger(__name__)

S = TypeVar("S", bound=Settings)


def run(package: str, settings: type[S], compose: Callable[[App, S], Awaitable[None]]) -> None:
    """Run the service whose `__main__` calls this; exit with status 2 and a line of JSON when it cannot start."""
    try:
        values = settings.from_env()
        telemetry.start_logging(package, values.log_level)
        work = _migrate(package, values) if sys.argv[1:] == ["migrate"] else _serve(package, values, compose)
        uvloop.run(work)
    except (SettingsError, MigrationError, OSError) as error:
        sys.stderr.write(json.dumps({"service": package, "level": "ERROR", "message": str(error)}) + "\n")
        sys.exit(2)


async def _migrate(package: str, settings: Settings) -> None:
    with explain_setting("MIGRATION_DATABASE_URL"):
        applied = await migrate(settings.migration_database_url, Path(str(files(package))))
    log.info("migrated", extra={"applied": applied})


async def _serve(package: str, settings: S, compose: Callable[[App, S], Awaitable[None]]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if settings.otel_exporter_otlp_endpoint:
        telemetry.start_tracing(package)
    if not settings.reuse_port:
        await _require_free(settings.listen)
    app = await build(App(package, settings), compose, settings)
    async with app.serving():
        log.info("serving", extra={"address": app.address})
        await stop.wait()
        log.info("draining")


async def _require_free(address: str) -> None:
    """Check that the address is free before gRPC, which logs lines of its own, binds it."""
    host, _, port = address.rpartition(":")
    with explain_setting(f"LISTEN={address}"):
        probe = await asyncio.get_running_loop().create_server(asyncio.Protocol, host.strip("[]"), int(port))
        probe.close()
        await probe.wait_closed()
