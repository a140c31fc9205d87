"""Migrations: each once, in order, by one process at a time, and never edited afterwards."""

import asyncio

import asyncpg
import pytest

from chassis.postgres.migrate import MigrationError, migrate


@pytest.fixture
async def url(postgres):
    """An empty database."""
    admin = await asyncpg.connect(postgres.url)
    await admin.execute("CREATE DATABASE migrated")
    yield postgres.url.replace("/postgres?", "/migrated?")
    await admin.execute("DROP DATABASE migrated WITH (FORCE)")
    await admin.close()


@pytest.fixture
def package(tmp_path):
    """A service with two migrations."""
    (tmp_path / "svc_new" / "migrations").mkdir(parents=True)
    add(tmp_path / "svc_new", "0001_create_thing", "CREATE TABLE thing (id int); INSERT INTO thing VALUES (1);")
    add(tmp_path / "svc_new", "0002_fill_thing", "INSERT INTO thing SELECT max(id) + 1 FROM thing")
    return tmp_path / "svc_new"


def add(package, name, sql):
    (package / "migrations" / f"{name}.sql").write_text(sql)


async def things(url):
    connection = await asyncpg.connect(url)
    try:
        return [row["id"] for row in await connection.fetch("SELECT id FROM thing ORDER BY id")]
    finally:
        await connection.close()


async def test_migrations_are_applied_once_in_order_the_chassiss_first(url, package):
    applied = await migrate(url, package)
    assert applied[0].startswith("chassis/0001")
    assert applied[-2:] == ["svc_new/0001_create_thing", "svc_new/0002_fill_thing"]
    assert await migrate(url, package) == []
    assert await things(url) == [1, 2]


async def test_a_later_migration_is_applied_later(url, package):
    await migrate(url, package)
    add(package, "0003_fill_more", "INSERT INTO thing VALUES (3)")
    assert await migrate(url, package) == ["svc_new/0003_fill_more"]
    assert await things(url) == [1, 2, 3]


async def test_an_edited_migration_is_rejected_and_no_later_one_is_applied(url, package):
    await migrate(url, package)
    add(package, "0001_create_thing", "CREATE TABLE thing (id bigint)")
    add(package, "0003_fill_more", "INSERT INTO thing VALUES (3)")
    with pytest.raises(MigrationError, match="svc_new/0001_create_thing was edited"):
        await migrate(url, package)
    assert await things(url) == [1, 2]


async def test_a_missing_migration_is_rejected(url, package):
    await migrate(url, package)
    (package / "migrations" / "0002_fill_thing.sql").unlink()
    with pytest.raises(MigrationError, match="0002_fill_thing"):
        await migrate(url, package)


async def test_a_failed_migration_leaves_no_effect_and_is_applied_once_repaired(url, package):
    add(package, "0003_break", "INSERT INTO thing VALUES (3); SELECT 1 / 0;")
    with pytest.raises(MigrationError, match="svc_new/0003_break: division by zero"):
        await migrate(url, package)
    assert await things(url) == [1, 2]
    add(package, "0003_break", "INSERT INTO thing VALUES (3)")
    assert await migrate(url, package) == ["svc_new/0003_break"]


async def test_concurrent_processes_apply_each_migration_once(url, package):
    applied = await asyncio.gather(*(migrate(url, package) for _ in range(8)))
    assert sorted(len(names) for names in applied)[:-1] == [0] * 7
    assert await things(url) == [1, 2]
