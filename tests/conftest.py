"""The servers that tests stand on, real and started once for each test process."""

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import pytest_asyncio

from chassis.testing import Issuer, Templates
from mesh.servers.postgres import Postgres
from mesh.servers.redis import Redis


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file in one process, so that what they share is started once."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Postgres]:
    """A PostgreSQL server that forgets everything when it is killed: no test here kills it."""
    async with Postgres(tmp_path_factory.mktemp("postgres"), durable=False) as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def redis_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    async with Redis(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture(scope="session")
def templates(postgres: Postgres) -> Templates:
    return Templates(postgres.url)


@pytest.fixture
def fresh_database(templates: Templates) -> Callable[[str], AbstractAsyncContextManager[str]]:
    """Lends new, migrated, empty databases by the name of a service."""
    return templates.database


@pytest.fixture
def event_prefix() -> str:
    """Keeps one test's topics and consumer groups apart from all others'."""
    return f"{uuid.uuid4().hex[:8]}."


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).parent.parent
