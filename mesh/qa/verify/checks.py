"""The invariants as they are written down: SQL with a heading that says what each is and when it must hold."""

import re
from dataclasses import dataclass
from importlib.resources import files

_HEADING = re.compile(r"^-- (always|soon|copy): (\w+)((?: [IH]\d+)*)\n-- (.+)\n", re.MULTILINE)

EVERYWHERE = "everywhere"
TOGETHER = "together"
HISTORY = "history"
#: The services whose copies TOGETHER reads. The last is read last: what others hold for an order was made after it.
PARTICIPANTS = ("svc_inventory", "svc_payment", "svc_delivery", "svc_order")


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


def read_service(service: str) -> tuple[list[Check], list[Copy]]:
    """Return the checks and copies of a service's database: what every service keeps, and its own invariants.sql."""
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
        when, name, numbers, says, sql = parts[start : start + 5]
        query = sql.strip().rstrip(";")
        if when == "copy":
            copies.append(Copy(name, query))
        else:
            checks.append(Check(where, name, tuple(numbers.split()), says, query, when == "soon"))
    return checks, copies
