"""docs/reliability.md lists every fault, and the tests and chaos faults that it names exist."""

import re

import pytest

from mesh.qa.chaos.schedule import Fault

FAULTS = [f"F{number:02}" for number in range(1, 36)]
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@pytest.fixture(scope="module")
def page(repository):
    return (repository / "docs/reliability.md").read_text()


@pytest.fixture(scope="module")
def rows(page):
    """The cells of each fault: what it is, the faults of chaos that inject it, and the tests."""
    return {
        number: cells for number, *cells in re.findall(r"^\| (F\d+) \|([^|]+)\|([^|]*)\|([^|]*)\|$", page, re.MULTILINE)
    }


def test_every_fault_has_a_row_that_says_how_it_is_injected(rows):
    assert list(rows) == FAULTS
    assert [number for number, (_, chaos, tests) in rows.items() if not (chaos.strip() or tests.strip())] == []


def test_the_faults_of_chaos_are_those_of_the_command(page, rows):
    named = {name for _, chaos, _ in rows.values() for name in re.findall(r"`([\w-]+)`", chaos)}
    assert named == {fault.value for fault in Fault}
    assert all(f"`{fault.value}`" in page.partition("## Runs")[0] for fault in Fault)


def test_the_tests_that_the_page_names_exist(page, repository):
    named = TEST.findall(page)
    assert named
    assert [name for path, name in named if f"def {name}(" not in (repository / path).read_text()] == []
