"""The sources that a stack's invariants are verified from."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from mesh.errors import StackError
from mesh.qa.simulator_client import SimulatorClient
from mesh.qa.verify.bus_reader import RedisReader
from mesh.stack.databases import ServiceDatabase
from mesh.stack.redis_servers import bus_reader_url
from mesh.stack.secrets import Secrets
from mesh.stack.servers.postgres import Postgres
from mesh.stack.state import Record, State


@dataclass(frozen=True, slots=True)
class VerifySources:
    """The URL of each service's database with the service's own role, and the simulators with their ledgers."""

    databases: dict[str, str] = field(repr=False)
    payment_provider: SimulatorClient
    courier: SimulatorClient
    #: Reads the event bus; None where that is Kafka, whose events are not read.
    bus: RedisReader | None = None


def sources_of(state: State, record: Record) -> VerifySources:
    """Return the sources of a running stack. Raises StackError."""
    secrets, server = Secrets(state), _server(state, record)
    return VerifySources(
        databases={
            name: ServiceDatabase(
                service=name,
                server=server,
                password=secrets.database(name),
                owner_password=secrets.database_owner(name),
            ).url
            for name in record.services
        },
        payment_provider=SimulatorClient.of(record, secrets, "payment_provider"),
        courier=SimulatorClient.of(record, secrets, "courier"),
        bus=_bus(state, record, secrets),
    )


def _bus(state: State, record: Record, secrets: Secrets) -> RedisReader | None:
    names = {process.name for process in record.processes}
    if "kafka" in names or os.environ.get("KAFKA_BOOTSTRAP"):
        return None
    if "redis" in names:
        return RedisReader(bus_reader_url(state.folder, Path(record.run), secrets))
    return RedisReader(url) if (url := os.environ.get("REDIS_URL")) else None


def _server(state: State, record: Record) -> str:
    if any(process.name == "postgres" for process in record.processes):
        return Postgres(state.folder / "postgres", Path(record.run, "postgres")).url
    if url := os.environ.get("DATABASE_URL"):
        return url
    raise StackError("this stack was started with DATABASE_URL", fix="set DATABASE_URL for this command too")
