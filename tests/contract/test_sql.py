"""Every named query is one that PostgreSQL can prepare on the migrated schema, and somebody uses it."""

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import asyncpg
import pytest

import chassis
from chassis import Database, Queries
from chassis.metrics import Gauges
from chassis.postgres.gauges import add_database_gauges
from mesh.qa.verify.checks import read_service
from mesh.services import SERVICES

ROOT = Path(__file__).parents[2]
SQL = re.compile(r"^\s*(?:--[^\n]*\n\s*)*(SELECT|INSERT|UPDATE|DELETE|WITH)\b")
Fresh = Callable[[str], AbstractAsyncContextManager[str]]

every_service = pytest.mark.parametrize("service", SERVICES)


def queries(service: str) -> dict[str, str]:
    loaded = Queries(ROOT / service / "queries.sql")
    return {name: getattr(loaded, name) for name in loaded.names()}


def chassis_queries() -> Iterator[tuple[str, str]]:
    for module in pkgutil.walk_packages(chassis.__path__, "chassis."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, str) and name.isupper() and SQL.match(value):
                yield f"{module.name}.{name}", value


def gauges_in(folder: Path) -> tuple[str, ...]:
    path = folder / "gauges.sql"
    return Queries(path).names() if path.is_file() else ()


async def refused(url: str, statements: dict[str, str]) -> dict[str, str]:
    """What PostgreSQL says of those that it cannot prepare."""
    said = {}
    connection = await asyncpg.connect(url)
    for name, statement in statements.items():
        try:
            await connection.prepare(statement)
        except asyncpg.PostgresError as error:
            said[name] = str(error)
    await connection.close()
    return said


@every_service
async def test_every_query_can_be_prepared(service: str, fresh_database: Fresh) -> None:
    async with fresh_database(service) as url:
        assert await refused(url, queries(service)) == {}


@every_service
async def test_every_invariant_can_be_prepared(service: str, fresh_database: Fresh) -> None:
    checks, copies = read_service(service)
    async with fresh_database(service) as url:
        assert await refused(url, {one.name: one.sql for one in (*checks, *copies)}) == {}


async def test_every_query_of_the_chassis_can_be_prepared(fresh_database: Fresh) -> None:
    statements = dict(chassis_queries())
    assert len(statements) >= 10
    async with fresh_database("svc_user") as url:
        assert await refused(url, statements) == {}


async def test_a_query_that_is_wrong_would_be_found(fresh_database: Fresh) -> None:
    async with fresh_database("svc_user") as url:
        assert set(await refused(url, {"good": "SELECT id FROM outbox", "bad": "SELECT nothing FROM outbox"})) == {
            "bad"
        }


@every_service
async def test_every_gauge_can_be_read(service: str, fresh_database: Fresh) -> None:
    async with fresh_database(service) as url, Database.open(url) as database:
        gauges = Gauges()
        add_database_gauges(gauges, database, service)
        text = (await gauges.scrape()).decode()
    declared = [name for path in (ROOT / service, ROOT / "chassis/postgres") for name in gauges_in(path)]
    assert [name for name in declared if f"# TYPE {name} gauge" not in text] == []
    assert all(f'metrics_unread_gauges_total{{gauge="{name}"}}' not in text for name in declared)


@every_service
def test_every_query_says_in_a_sentence_what_it_does(service: str) -> None:
    silent = [name for name, query in queries(service).items() if not re.match(r"-- [A-Z].*", query)]
    assert silent == []


@every_service
def test_every_query_is_used_and_every_one_that_is_used_exists(service: str) -> None:
    code = "\n".join(path.read_text() for path in (ROOT / service).glob("*.py"))
    used = set(re.findall(r"\bsql\.([a-z0-9_]+)", code))
    chosen = tuple(re.findall(r'\bgetattr\(sql, f"([a-z0-9_]+)\{', code))  # one of several, by the rest of its name
    names = set(queries(service))
    assert used | {name for name in names if name.startswith(chosen)} == names


@every_service
def test_sql_stands_in_queries_sql_and_nowhere_else(service: str) -> None:
    statement = re.compile(r"\b(SELECT .+ FROM|INSERT INTO|UPDATE \w+ SET|DELETE FROM)\b")
    found = [path.name for path in (ROOT / service).glob("*.py") if statement.search(path.read_text())]
    assert found == []


@every_service
def test_no_row_is_changed_without_saying_which(service: str) -> None:
    careless = [
        name
        for name, query in queries(service).items()
        if re.search(r"\b(UPDATE|DELETE FROM)\s+\w+", query) and not re.search(r"\b(WHERE|ON CONFLICT)\b", query)
    ]
    assert careless == []


@every_service
def test_migrations_are_numbered_without_gaps_and_say_what_they_do(service: str) -> None:
    names = sorted(path.name for path in (ROOT / service / "migrations").glob("*"))
    assert names
    assert [name[:4] for name in names] == [f"{number:04}" for number in range(1, len(names) + 1)]
    assert [name for name in names if not re.fullmatch(r"\d{4}_[a-z]+(_[a-z0-9]+)+(\.post)?\.sql", name)] == []
