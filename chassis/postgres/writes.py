"""Rows to write, which are sent in one statement: a data-modifying CTE for each query.

A query of a write takes a column of rows in each parameter and unnests them, so that any number of rows, and of
transactions, share it. It writes each row exactly once, or the statement fails as a whole: a version that has moved on,
or a key that is taken, is a conflict.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

_PARAMETER = re.compile(r"\$(\d+)")
_TARGET = re.compile(r"\b(?:INSERT INTO|UPDATE|DELETE FROM)\s+(?!SET\b|OF\b)(\w+)")
#: Sessions see the time at which their transaction began, so an estimate is as wrong as it is early.
_TOLERANCE = "1 second"


class Writes:
    """The rows of one statement, by query, in the order in which they are written."""

    def __init__(self) -> None:
        """Begin without rows."""
        self.rows: dict[str, list[Sequence[Any]]] = {}
        #: Estimates of the database's clock that the rows depend on.
        self.times: list[datetime] = []

    def accepts(self, query: str) -> bool:
        """Return whether a query can share the statement, in which no row may be changed twice, or after its insert."""
        table, inserts = _target(query)
        return inserts or all(table != _target(other)[0] for other in self.rows)

    def add(self, query: str, rows: Iterable[Sequence[Any]]) -> None:
        """Add rows of a query."""
        self.rows.setdefault(query, []).extend(rows)

    def merge(self, other: "Writes") -> None:
        """Add the rows of another transaction."""
        for query, rows in other.rows.items():
            self.add(query, rows)
        self.times.extend(other.times)

    def statement(self) -> tuple[str, list[Any]]:
        """Return the statement and its arguments; it raises SerializationError when a row is not written."""
        arguments: list[Any] = [list(column) for rows in self.rows.values() for column in zip(*rows, strict=True)]
        widths = tuple(len(rows[0]) for rows in self.rows.values())
        composed = _composed(tuple(self.rows), widths, is_timed=bool(self.times))
        return composed, [*arguments, self.times] if self.times else arguments


@lru_cache(1024)
def _composed(queries: tuple[str, ...], widths: tuple[int, ...], *, is_timed: bool) -> str:
    parts, checks, offset = [], [], 0
    for number, (query, width) in enumerate(zip(queries, widths, strict=True)):
        parts.append(f"w{number} AS ({_renumbered(query, offset)} RETURNING 1)")
        checks.append(f"(SELECT count(*) FROM w{number}) = cardinality(${offset + 1})")  # noqa: S608
        offset += width
    if is_timed:
        within = f"now() BETWEEN estimate - interval '{_TOLERANCE}' AND estimate + interval '{_TOLERANCE}'"
        checks.append(f"(SELECT bool_and({within}) FROM unnest(${offset + 1}::timestamptz[]) AS estimate)")  # noqa: S608
    return f"WITH {', '.join(parts)} SELECT CASE WHEN {' AND '.join(checks)} THEN true ELSE reject_conflict() END"


def _renumbered(query: str, offset: int) -> str:
    return _PARAMETER.sub(lambda found: f"${int(found[1]) + offset}", query)


@lru_cache(1024)
def _target(query: str) -> tuple[str, bool]:
    """Return the table that a query writes, and whether it only inserts."""
    found = _TARGET.search(query)
    if found is None:
        raise ValueError(f"not a write: {query}")
    return found[1], found[0].startswith("INSERT") and "DO UPDATE" not in query
