"""Where a stack keeps what is to be verified."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from mesh.errors import StackError
from mesh.qa.simulator_client import Partner
from mesh.stack.databases import ServiceDatabase
from mesh.stack.secrets import Secrets
from mesh.stack.servers.postgres import Postgres
from mesh.stack.state import Record, State


@dataclass(frozen=True, slots=True)
class Places:
    """The databases of the services, each as the service itself connects, and the books of the partners."""

    databases: dict[str, str] = field(repr=False)
    payment_provider: Partner
    courier: Partner


def places_of(state: State, record: Record) -> Places:
    secrets, server = Secrets(state), _server(state, record)
    return Places(
        databases={
            name: ServiceDatabase(
                service=name,
                server=server,
                password=secrets.database(name),
                owner_password=secrets.database_owner(name),
            ).url
            for name in record.services
        },
        payment_provider=Partner.of(record, secrets, "payment_provider"),
        courier=Partner.of(record, secrets, "courier"),
    )


def _server(state: State, record: Record) -> str:
    if any(process.name == "postgres" for process in record.processes):
        return Postgres(state.folder / "postgres", Path(record.run, "postgres")).url
    if url := os.environ.get("DATABASE_URL"):
        return url
    raise StackError(
        "the database of this stack was named by DATABASE_URL when it was started", fix="set DATABASE_URL here, too"
    )
