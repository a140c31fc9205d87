"""docs/invariants.md names every invariant and every check of it, and the checks that it names exist."""

import re

import pytest

from mesh.qa.verify.checks import EVERYWHERE, HISTORY, TOGETHER, read_service, read_shared
from mesh.services import SERVICES

INVARIANTS = [*(f"I{number:02}" for number in range(1, 35)), *(f"H{number}" for number in range(1, 8))]
#: What the shop does not have.
WITHOUT_CHECKS = {"I20", "I30"}
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@pytest.fixture(scope="module")
def page(repository):
    return (repository / "docs/invariants.md").read_text()


@pytest.fixture(scope="module")
def rows(page):
    """The checks of each invariant, as the page says."""
    cells = re.findall(r"^\| ([IH]\d+) \|[^|]+\|([^|]+)\|$", page, re.MULTILINE)
    return {number: set(re.findall(r"`(\w+: \w+)`", checks)) for number, checks in cells}


def checks():
    """Return each check by its place and name; those of every service once."""
    found = {f"{where}: {check.name}": check for where in (TOGETHER, HISTORY) for check in read_shared(where)}
    services = {service: read_service(service)[0] for service in SERVICES}
    common = set.intersection(*({check.name for check in own} for own in services.values()))
    for service, own in services.items():
        found |= {f"{EVERYWHERE if check.name in common else service}: {check.name}": check for check in own}
    return found


@pytest.mark.parametrize("number", INVARIANTS)
def test_the_page_names_the_checks_of_an_invariant(rows, number):
    assert rows[number] == {name for name, check in checks().items() if number in check.numbers}
    assert bool(rows[number]) != (number in WITHOUT_CHECKS)


def test_no_check_has_a_number_that_is_not_in_the_page(rows):
    assert {number for check in checks().values() for number in check.numbers} <= rows.keys() == set(INVARIANTS)


def test_the_tests_that_plant_violations_exist(page, repository):
    named = TEST.findall(page)
    assert named
    assert [name for path, name in named if f"def {name}(" not in (repository / path).read_text()] == []
