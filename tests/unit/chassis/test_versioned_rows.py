"""Rows under optimistic locking: each changed row is written once, with the version that was read."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.domain.versioned_rows import VersionedRows


@dataclass(frozen=True)
class Row:
    count: int
    version: int


def test_a_row_reads_as_it_was_last_assigned():
    rows = VersionedRows({"a": Row(1, 5)})
    rows["a"] = Row(2, 5)
    rows["b"] = Row(3, 0)
    assert (rows["a"].count, rows["b"].count) == (2, 3)
    assert (list(rows), len(rows), "b" in rows, "c" in rows) == (["a", "b"], 2, True, False)
    with pytest.raises(KeyError):
        rows["c"]


def test_rows_that_were_only_read_are_not_written():
    assert VersionedRows({"a": Row(1, 5)}).changed() == []


def test_a_row_is_written_with_the_version_that_was_read_and_a_new_one_with_0():
    rows = VersionedRows({"a": Row(1, 5)})
    rows["a"] = Row(2, 6)
    rows["b"] = Row(3, 1)
    assert rows.changed() == [(Row(2, 6), 5), (Row(3, 1), 0)]


def test_what_the_caller_does_with_its_own_mapping_changes_nothing():
    read = {"a": Row(1, 5)}
    rows = VersionedRows(read)
    read.clear()
    assert rows["a"] == Row(1, 5)


@given(st.dictionaries(st.integers(0, 5), st.integers(1, 9)), st.lists(st.tuples(st.integers(0, 5), st.integers())))
def test_each_changed_row_is_written_once_in_key_order(versions, assignments):
    rows = VersionedRows({key: Row(0, version) for key, version in versions.items()})
    for key, count in assignments:
        rows[key] = Row(count, 99)
    keys = sorted({key for key, _ in assignments})
    assert rows.changed() == [(Row(dict(assignments)[key], 99), versions.get(key, 0)) for key in keys]
