import asyncpg
import pytest

from mesh.errors import StackError
from mesh.stack.databases import ServiceDatabase


@pytest.fixture
async def orders(postgres):
    database = ServiceDatabase(service="svc_order", server=postgres.url, password="row/s", owner_password="own@s")
    await database.create()
    owner = await asyncpg.connect(database.owner_url)
    await owner.execute("DROP TABLE IF EXISTS thing; CREATE TABLE thing (id bigserial PRIMARY KEY, name text)")
    await owner.close()
    return database


@pytest.fixture
async def service(orders):
    connection = await asyncpg.connect(orders.url)
    yield connection
    await connection.close()


async def test_a_service_can_read_and_write_rows_of_migrated_tables(service):
    await service.execute("INSERT INTO thing (name) VALUES ('a'), ('b')")
    await service.execute("UPDATE thing SET name = 'c' WHERE name = 'a'")
    await service.execute("DELETE FROM thing WHERE name = 'b'")
    assert [row["name"] for row in await service.fetch("SELECT name FROM thing")] == ["c"]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine (id int)",
        "ALTER TABLE thing ADD COLUMN more text",
        "DROP TABLE thing",
        "TRUNCATE thing",
        "CREATE SCHEMA mine",
        "CREATE TEMPORARY TABLE mine (id int)",
        "CREATE ROLE friend",
        "CREATE DATABASE mine",
        "SET ROLE svc_order_owner",
        "SET ROLE postgres",
        "ALTER ROLE svc_order SUPERUSER",
        "SELECT pg_read_file('/etc/passwd')",
        "COPY thing TO PROGRAM 'id'",
    ],
)
async def test_a_service_can_change_nothing_but_rows(service, statement):
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await service.execute(statement)


async def test_a_service_cannot_connect_to_the_database_of_another(orders, postgres):
    other = ServiceDatabase(service="svc_user", server=postgres.url, password="x", owner_password="y")
    await other.create()
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await asyncpg.connect(other.url, user="svc_order", password="row/s")


async def test_creating_it_again_keeps_the_rows_and_sets_a_new_password(orders, service, postgres):
    await service.execute("INSERT INTO thing (name) VALUES ('kept')")
    again = ServiceDatabase(service="svc_order", server=postgres.url, password="new", owner_password="own@s")
    await again.create()
    connection = await asyncpg.connect(again.url)
    assert await connection.fetchval("SELECT name FROM thing") == "kept"
    await connection.close()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(orders.url)


async def test_an_administrator_who_is_no_superuser_can_create_it(postgres):
    admin = await asyncpg.connect(postgres.url)
    await admin.execute("CREATE ROLE dba LOGIN CREATEDB CREATEROLE PASSWORD 'dba'")
    await admin.close()
    server = postgres.url.replace(postgres.url.split("@")[0], "postgresql://dba:dba")
    database = ServiceDatabase(service="svc_payment", server=server, password="x", owner_password="y")
    await database.create()
    await database.create()
    connection = await asyncpg.connect(database.url)
    assert await connection.fetchval("SELECT current_user") == "svc_payment"
    await connection.close()


async def test_a_server_that_cannot_be_reached_is_reported_without_its_password(tmp_path):
    server = f"postgresql://postgres:hunter2@/postgres?host={tmp_path}"
    database = ServiceDatabase(service="svc_order", server=server, password="x", owner_password="y")
    with pytest.raises(StackError, match="cannot create the database of svc_order") as it:
        await database.create()
    assert "hunter2" not in str(it.value)
