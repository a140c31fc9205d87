"""Named queries: the statements of a queries.sql by name."""

import pytest

from chassis import Queries


@pytest.fixture
def load(tmp_path):
    def load(text):
        path = tmp_path / "queries.sql"
        path.write_text(text)
        return Queries(path)

    return load


def test_a_query_is_an_attribute_by_its_name(load):
    sql = load(
        "-- name: read_now\n-- Reads the clock.\nSELECT now();\n\n-- name: count_all\nSELECT count(*)\nFROM note;\n"
    )
    assert sql.names() == ("read_now", "count_all")
    assert sql.read_now == "-- Reads the clock.\nSELECT now()"
    assert sql.count_all == "SELECT count(*)\nFROM note"


def test_a_duplicate_name_is_rejected(load):
    with pytest.raises(ValueError, match="twice"):
        load("-- name: a\nSELECT 1;\n-- name: a\nSELECT 2;\n")


def test_a_missing_query_is_named(load):
    with pytest.raises(AttributeError, match="missing"):
        load("-- name: a\nSELECT 1;").missing  # noqa: B018


def test_a_file_without_queries_has_no_names(load):
    assert load("-- nothing here\n").names() == ()
