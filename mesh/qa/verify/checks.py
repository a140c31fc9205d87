"""Reads the invariants: SQL with a heading that describes each and states when it must hold."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files

_HEADING = re.compile(
    r"^-- (always|eventually|copy|decode|history copy|history decode|derived|index): (\w+)((?: [\w.]+)*)\n-- (.+)\n",
    re.MULTILINE,
)

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
    #: Whether only the checks of a history need it.
    for_history: bool = False


@dataclass(frozen=True, slots=True)
class Derived:
    """A table made of the copied ones, which checks search by its indexed columns."""

    name: str
    indexed: tuple[str, ...]
    #: Empty for an index on a copied table.
    sql: str


def read_service(service: str) -> tuple[list[Check], list[Copy]]:
    """Return the checks and copies of a service's database: the common ones, and those of its invariants.sql."""
    own = files(service) / "invariants.sql"
    return _parse(service, _read(EVERYWHERE) + (own.read_text(encoding="utf-8") if own.is_file() else ""))


def read_shared(where: str) -> list[Check]:
    """Return the checks that span services: TOGETHER or HISTORY."""
    return _parse(where, _read(where))[0]


def read_derived(where: str) -> list[Derived]:
    """Return the tables that the checks of TOGETHER or HISTORY need besides the copies, in their order."""
    return [
        Derived(name, tuple(words.split()), "" if when == "index" else query)
        for when, name, words, _, query in _headings(_read(where))
        if when in ("derived", "index")
    ]


def _read(name: str) -> str:
    return files(__package__).joinpath(f"{name}.sql").read_text(encoding="utf-8")


def _parse(where: str, text: str) -> tuple[list[Check], list[Copy]]:
    checks, copies = [], []
    for when, name, words, description, query in _headings(text):
        if when.endswith(("copy", "decode")):
            message, elements = (*words.split(), "", "")[:2]
            copies.append(Copy(name, query, message, elements, for_history=when.startswith("history")))
        elif when in ("always", "eventually"):
            checks.append(Check(where, name, tuple(words.split()), description, query, when == "eventually"))
    return checks, copies


def _headings(text: str) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield each heading with the query below it: kind, name, further words, description, query."""
    _, *parts = _HEADING.split(text)
    for start in range(0, len(parts), 5):
        when, name, words, description, sql = parts[start : start + 5]
        yield when, name, words, description, sql.strip().rstrip(";")
