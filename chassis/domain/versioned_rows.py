"""Rows under optimistic locking: what was read, at which version, and what changed since."""

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar


class Versioned(Protocol):
    """A row with a version column."""

    @property
    def version(self) -> int:
        """Return the version, which grows with every change."""
        ...


Key = TypeVar("Key")
Row = TypeVar("Row", bound=Versioned)


class VersionedRows(dict[Key, Row]):
    """The rows of one batch by key, a dict that remembers what is assigned. Keys can be sorted."""

    def __init__(self, rows: Mapping[Key, Row]) -> None:
        """Begin with the rows as they were read."""
        super().__init__(rows)
        self._read_versions = {key: row.version for key, row in rows.items()}
        self._changed: set[Any] = set()

    def __setitem__(self, key: Key, row: Row) -> None:
        """Replace or add a row."""
        super().__setitem__(key, row)
        self._changed.add(key)

    def changed(self) -> list[tuple[Row, int]]:
        """Return each assigned row, in key order, with the version that was read, 0 for a new row."""
        return [(self[key], self._read_versions.get(key, 0)) for key in sorted(self._changed)]
