"""The invariants as they are written down: SQL with a heading that says what each is and when it must hold."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files

from mesh.services import SERVICES

_HEADING = re.compile(r"^-- (always|soon|copy): (\w+)((?: [IH]\d+)*)\n-- (.+)\n", re.MULTILINE)

EVERYWHERE = "everywhere"
TOGETHER = "together"
HISTORY = "history"
#: Whose copies TOGETHER is asked of.
PARTICIPANTS = frozenset({"svc_inventory", "svc_order", "svc_payment", "svc_delivery"})


@dataclass(frozen=True, slots=True)
class Check:
    """A query that finds what breaks an invariant."""

    #: The service whose database it asks, or TOGETHER, or HISTORY.
    where: str
    name: str
    #: As the list of invariants numbers them.
    numbers: tuple[str, ...]
    says: str
    sql: str
    #: Whether it may take a while to come true, after the last request.
    soon: bool


@dataclass(frozen=True, slots=True)
class Copy:
    """A query for what checks of several services need of one; its rows go into the table of this name."""

    name: str
    sql: str


def read_checks(where: str) -> tuple[list[Check], list[Copy]]:
    """What is asked of a service's database, of all services together, or of these and a client's history."""
    checks, copies = [], []
    for file in (EVERYWHERE, where) if where in SERVICES else (where,):
        for when, name, numbers, says, sql in _read(file):
            if when == "copy":
                copies.append(Copy(name, sql))
            else:
                checks.append(Check(where, name, tuple(numbers.split()), says, sql, when == "soon"))
    return checks, copies


def _read(file: str) -> Iterator[tuple[str, ...]]:
    text = files(__package__).joinpath(f"{file}.sql").read_text(encoding="utf-8")
    _, *parts = _HEADING.split(text)
    for start in range(0, len(parts), 5):
        *heading, sql = parts[start : start + 5]
        yield (*heading, sql.strip().rstrip(";"))
