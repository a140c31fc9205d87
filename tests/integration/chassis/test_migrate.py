"""Migrations: each once, in order, by one process at a time, and never edited afterwards."""

import asyncio

import asyncpg
import pytest

from chassis.postgres.migrate import MigrationError, migrate
from chassis.testing import eventually


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
    (package / "migrations" / "0001_create_thing.sql").unlink()
    with pytest.raises(MigrationError, match="0001_create_thing"):
        await migrate(url, package)


async def test_an_older_release_can_migrate_after_a_newer_one(url, package):
    add(package, "0003_fill_more", "INSERT INTO thing VALUES (3)")
    await migrate(url, package)
    (package / "migrations" / "0003_fill_more.sql").unlink()
    assert await migrate(url, package) == []
    assert await things(url) == [1, 2, 3]


async def test_an_index_is_created_concurrently_and_writes_go_on(url, package):
    await migrate(url, package)
    add(
        package,
        "0003_index_things",
        "-- concurrently\nCREATE INDEX CONCURRENTLY IF NOT EXISTS one ON thing (id);\n"
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS two ON thing (id) WHERE id > 1;\n",
    )
    writer = await asyncpg.connect(url)
    try:
        transaction = writer.transaction()
        await transaction.start()
        await writer.execute("INSERT INTO thing VALUES (7)")
        migrating = asyncio.create_task(migrate(url, package))
        other = await asyncpg.connect(url)
        waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%CREATE INDEX%' AND wait_event_type = 'Lock'"
        await eventually(lambda: other.fetchval(waits))
        await other.execute("SET statement_timeout = 1000; INSERT INTO thing VALUES (8)")
        await other.close()
        await transaction.commit()
        assert await migrating == ["svc_new/0003_index_things"]
        names = await writer.fetch("SELECT indexname FROM pg_indexes WHERE tablename = 'thing' ORDER BY 1")
        assert [row[0] for row in names] == ["one", "two"]
    finally:
        await writer.close()


async def test_an_index_that_a_failed_migration_left_invalid_is_created_again(url, package):
    sql = "-- concurrently\nCREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS one ON thing ((id > 0));"
    add(package, "0003_index_things", sql)
    with pytest.raises(MigrationError, match="0003_index_things"):
        await migrate(url, package)  # two rows have the same key
    connection = await asyncpg.connect(url)
    await connection.execute("DELETE FROM thing WHERE id = 2")
    await migrate(url, package)
    assert await connection.fetchval("SELECT indisvalid FROM pg_index WHERE indexrelid = 'one'::regclass")
    await connection.close()


async def test_a_migration_does_not_queue_for_a_lock_and_is_repeated_until_it_gets_it(url, package):
    await migrate(url, package)
    add(package, "0003_widen_thing", "ALTER TABLE thing ADD COLUMN note text NOT NULL DEFAULT ''")
    reader = await asyncpg.connect(url)
    transaction = reader.transaction()
    await transaction.start()
    await reader.execute("SELECT FROM thing")
    with pytest.raises(MigrationError, match="lock timeout"):
        await migrate(url, package, lock_milliseconds=50, tries=1)
    migrating = asyncio.create_task(migrate(url, package, lock_milliseconds=50))
    refused = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    other = await asyncpg.connect(url)
    await eventually(lambda: other.fetchval(refused))
    await other.execute("SET statement_timeout = 1000; INSERT INTO thing VALUES (8)")
    await transaction.rollback()
    assert await migrating == ["svc_new/0003_widen_thing"]
    await other.close()
    await reader.close()


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
