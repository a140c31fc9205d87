"""Whole stacks, one at a time: two of them at once would only measure how small the machine is."""

from pathlib import Path

import pytest

from tests.e2e.stacks import Cli, cleaned


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture
def cli(tmp_path):
    """The command, for a stack that does not exist yet."""
    with cleaned(Cli(tmp_path / "stack")) as cli:
        yield cli


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """A running stack for the tests of one file."""
    with cleaned(Cli(tmp_path_factory.mktemp("stack"))) as cli:
        cli.info = cli.up()
        yield cli
