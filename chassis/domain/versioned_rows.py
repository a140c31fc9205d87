"""Rows under optimistic locking: what was read, at which version, and what changed since."""

from collections.abc import Iterator, Mapping
from typing import Protocol, TypeVar


class Versioned(Protocol):
    """A row with a version column."""

    @property
    def version(self) -> int:
        """Return the version, which grows with every change."""
        ...


Key = TypeVar("Key")
Row = TypeVar("Row", bound=Versioned)


class VersionedRows(Mapping[Key, Row]):
    """The rows of one batch by key. A row that was not read has version 0, so writing it is an insert."""

    def __init__(self, rows: Mapping[Key, Row]) -> None:
        """Begin with the rows as they were read."""
        self._rows = dict(rows)
        self._read_versions = {key: row.version for key, row in rows.items()}
        self._changed: dict[Key, None] = {}

    def __getitem__(self, key: Key) -> Row:
        """Return the row as it is after the changes so far; raises KeyError."""
        return self._rows[key]

    def __iter__(self) -> Iterator[Key]:
        """Iterate over the keys."""
        return iter(self._rows)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def put(self, key: Key, row: Row) -> None:
        """Replace or add a row."""
        self._rows[key] = row
        self._changed[key] = None

    def changed(self) -> list[tuple[Row, int]]:
        """Return each row that was put, once, with the version that was read; in the order of the first change."""
        return [(self._rows[key], self._read_versions.get(key, 0)) for key in self._changed]
