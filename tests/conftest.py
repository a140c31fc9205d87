"""The servers that tests stand on, real and started once for each test process."""

import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from itertools import cycle
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from chassis.testing import Issuer, TemplateDatabases
from mesh.stack.ports import Ports, free_base, is_free
from mesh.stack.servers.postgres import Postgres
from mesh.stack.servers.redis import Redis

# Examples of hypothesis are the same in every run, and none fails because the machine was busy.
settings.register_profile(
    "steady", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")


#: Folders whose files share a running stack; all other tests share at most what their file starts.
_SHARED_STACKS = ("tests/e2e/purchases/", "tests/e2e/browser/")
#: The longest files come first, so that no process has one left at the end.
_ORDER = (*_SHARED_STACKS, "tests/e2e/", "tests/integration/")


class _ByServers(LoadScopeScheduling):
    """Keeps tests that share servers in one process: those of a file, or of a folder with one stack."""

    def _split_scope(self, nodeid: str) -> str:
        return next((folder for folder in _SHARED_STACKS if nodeid.startswith(folder)), nodeid.partition("::")[0])


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Share the tests between processes by what they start: xdist's own groups have no effect under pytest 9."""
    config.option.loadscopereorder = False  # the order is that of `pytest_collection_modifyitems`
    return _ByServers(config, log)


def pytest_xdist_auto_num_workers() -> int:
    """Run two processes for each core, eight at most: a test also waits, for servers to start, to drain or to end."""
    return min(2 * (os.cpu_count() or 1), 8)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that take the longest."""
    items.sort(key=lambda item: next((place for place, part in enumerate(_ORDER) if item.nodeid.startswith(part)), 99))


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
def templates(postgres: Postgres) -> TemplateDatabases:
    return TemplateDatabases(postgres.url)


@pytest.fixture
def fresh_database(templates: TemplateDatabases) -> Callable[[str], AbstractAsyncContextManager[str]]:
    """Lends new, migrated, empty databases by the name of a service."""
    return templates.database


@pytest.fixture(scope="session")
def free_port() -> Iterator[Callable[[], int]]:
    """Give out ports that nobody listens on, and that no connection of ours takes for its own end meanwhile."""
    ports = Ports(free_base())
    with ports.hold():
        numbers = cycle(range(ports.base, ports.held))
        yield lambda: next(number for number in numbers if is_free(number))


@pytest.fixture
def event_prefix() -> str:
    """Keep one test's topics and consumer groups apart from all others'."""
    return f"{uuid.uuid4().hex[:8]}."


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).parent.parent
