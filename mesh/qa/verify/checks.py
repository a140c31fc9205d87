"""Reads the invariants: SQL with a heading that describes each and states when it must hold."""

import re
from dataclasses import dataclass
from importlib.resources import files

_HEADING = re.compile(r"^-- (always|eventually|copy|decode): (\w+)((?: [\w.]+)*)\n-- (.+)\n", re.MULTILINE)

EVERYWHERE = "everywhere"
TOGETHER = "together"
HISTORY = "history"
#: The services whose copies TOGETHER reads. svc_order is read last: what others hold for an order is newer than it.
PARTICIPANTS = ("svc_inventory", "svc_payment", "svc_delivery", "svc_order")


@dataclass(frozen=True, slots=True)
class Check:
    """A query that returns the rows that violate an invariant."""

    #: The service whose database it queries, or TOGETHER, or HISTORY.
    where: str
    name: str
    #: The numbers of the invariants.
    numbers: tuple[str, ...]
    description: str
    sql: str
    #: Whether it may hold only some time after the last request.
    eventual: bool


@dataclass(frozen=True, slots=True)
class Copy:
    """A query for the rows that cross-service checks need; they are copied to the table of this name."""

    name: str
    sql: str
    #: The message type of its column `payload`, which is decoded into columns; empty where there is none.
    message: str = ""
    #: A repeated field of the message: each element becomes a row. Empty where the message is one row.
    elements: str = ""


def read_service(service: str) -> tuple[list[Check], list[Copy]]:
    """Return the checks and copies of a service's database: the common ones, and those of its invariants.sql."""
    own = files(service) / "invariants.sql"
    return _parse(service, _read(EVERYWHERE) + (own.read_text(encoding="utf-8") if own.is_file() else ""))


def read_shared(where: str) -> list[Check]:
    """Return the checks that span services: TOGETHER or HISTORY."""
    return _parse(where, _read(where))[0]


def _read(name: str) -> str:
    return files(__package__).joinpath(f"{name}.sql").read_text(encoding="utf-8")


def _parse(where: str, text: str) -> tuple[list[Check], list[Copy]]:
    checks, copies = [], []
    _, *parts = _HEADING.split(text)
    for start in range(0, len(parts), 5):
        when, name, numbers, description, sql = parts[start : start + 5]
        query = sql.strip().rstrip(";")
        if when in ("copy", "decode"):
            copies.append(Copy(name, query, *numbers.split()))
        else:
            checks.append(Check(where, name, tuple(numbers.split()), description, query, when == "eventually"))
    return checks, copies
