"""Every finding that docs/findings.md closes names tests that exist."""

import re

import pytest

FINDINGS = ("B", 43), ("P", 30)
TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


@pytest.fixture(scope="module")
def table(repository):
    return (repository / "docs/findings.md").read_text()


@pytest.mark.parametrize("finding", [f"{kind}{number}" for kind, last in FINDINGS for number in range(1, last + 1)])
def test_each_finding_is_listed(table, finding):
    assert re.search(rf"^\|[^|]*\b{finding}\b", table, re.MULTILINE)


def test_each_test_that_the_table_names_exists(table, repository):
    named = TEST.findall(table)
    missing = [
        (path, name)
        for path, name in named
        if not (repository / path).is_file() or (name and f"def {name}(" not in (repository / path).read_text())
    ]
    assert named
    assert missing == []
