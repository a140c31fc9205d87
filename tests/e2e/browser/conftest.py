"""A shop with its sample data, and a browser; without Chromium on the machine, the tests are skipped and say so."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from mesh.qa.sample_data import people
from mesh.stack.secrets import Secrets
from tests.e2e.browser.chromium import Browser, PageUnderTest, chromium, find
from tests.e2e.stacks import Cli, cleaned


@dataclass(frozen=True, slots=True)
class Shop:
    """Where the running shop is, and its staff."""

    url: str
    grpc: str
    cli: Cli
    staff: people.Person


@pytest.fixture(scope="package")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with cleaned(Cli(tmp_path_factory.mktemp("shop"))) as cli:
        info = cli.json("up", "--detach", "--port-base", "0")
        yield Shop(info["edge"], info["grpc"], cli, people.staff(Secrets(cli.state)))


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    path = find()
    if path is None:
        pytest.skip("this machine has no Chromium: the pages are not tried in a browser")
    async with chromium(path, tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser) -> AsyncIterator[PageUnderTest]:
    """A tab; whatever a test does in it, the page's console stays free of errors."""
    async with browser.page() as tab:
        yield tab
        assert tab.errors == []
