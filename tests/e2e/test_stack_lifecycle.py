"""How stacks start and stop, also on errors."""

import os
import signal
import socket
import subprocess
import uuid
from pathlib import Path

import httpx
import pytest

from mesh.stack.data_dirs import data_dir_for, unprivileged_account
from mesh.stack.ports import free_base
from mesh.stack.servers import kafka
from mesh.stack.servers.postgres import Postgres
from mesh.stack.servers.redis import Redis
from tests.e2e.stacks import COMMAND, Cli, get, until


@pytest.fixture
def in_foreground(cli):
    """Start `shopmesh up` as in a terminal, and waits until it is ready."""
    started = []

    def start(*arguments):
        output = (cli.folder.parent / "output").open("w+")
        child = subprocess.Popen(
            [COMMAND, "up", "--port-base", "0", "--no-sample-data", *arguments],
            env=cli.environment,
            stdout=output,
            stderr=output,
        )
        started.append((child, output))
        until(lambda: child.poll() is not None or "everything is ready" in Path(output.name).read_text())
        assert child.poll() is None, Path(output.name).read_text()
        return child

    yield start
    for child, output in started:
        child.kill()
        child.wait()
        output.close()


def test_an_interrupt_stops_everything(cli, in_foreground):
    child = in_foreground("--no-mesh")
    info = cli.json("status")
    assert info["grpc"] is None
    assert get(f"{info['edge']}/v1/products").status_code == 200
    assert "ingress" not in [one["name"] for one in info["processes"]]
    run = Path(cli.state.read().run)
    child.send_signal(signal.SIGINT)
    assert child.wait(120) == 0
    assert cli.alive == []
    assert cli.listening == []
    assert not run.exists()
    assert cli.run("status").returncode == 3


def test_a_killed_supervisor_ends_every_process_and_the_data_are_kept(cli):
    register(cli.up())
    run = Path(cli.state.read().run)
    cli.kill("supervisor")
    until(lambda: cli.alive == [] and cli.listening == [])
    assert cli.run("down").returncode == 0
    assert not run.exists()
    assert login(cli.up()).status_code == 200
    assert cli.run("down").returncode == 0
    assert (cli.alive, cli.listening) == ([], [])


PERSON = {"email": "kept@example.com", "password": "correct horse battery"}


def register(info):
    person = PERSON | {"displayName": "Kept", "requestId": str(uuid.uuid4())}
    assert httpx.post(f"{info['edge']}/v1/auth/register", json=person, timeout=30).status_code == 200


def login(info):
    return httpx.post(f"{info['edge']}/v1/auth/login", json=PERSON, timeout=30)


async def test_servers_of_the_environment_are_used_and_replicas_share_the_calls(tmp_path, cli):
    async with Postgres(tmp_path / "pg", durable=False) as postgres, Redis(tmp_path / "redis") as redis:
        cli.environment |= {"DATABASE_URL": postgres.url, "REDIS_URL": redis.url}
        info = cli.up("--replicas", "svc_catalog=2")
        names = [one["name"] for one in info["processes"]]
        assert not {"postgres", "redis"} & set(names)
        assert "svc_catalog-2" in names
        cli.kill("svc_catalog")
        async with httpx.AsyncClient(base_url=info["edge"], timeout=30) as client:
            replies = [await client.get("/v1/products") for _ in range(40)]
        assert {reply.status_code for reply in replies} == {200}  # the other one answers meanwhile
        assert cli.run("down").returncode == 0


@pytest.mark.kafka
@pytest.mark.skipif(kafka.missing() is not None, reason=f"NOT TESTED on Kafka: {kafka.missing()}")
def test_kafka_can_be_the_event_bus(cli):
    info = cli.up("--events", "kafka")
    assert cli.process("kafka").state == "ready"
    assert get(f"{info['edge']}/v1/products").status_code == 200
    cli.kill("kafka")
    until(lambda: cli.process("kafka").restarts and cli.process("kafka").state == "ready")
    assert cli.run("down").returncode == 0
    assert (cli.alive, cli.listening) == ([], [])


def test_damaged_data_are_reported_and_no_process_is_left(cli):
    cli.state.create()
    data = data_dir_for(cli.folder / "postgres", unprivileged_account()) / "data"
    data.mkdir()
    (data / "PG_VERSION").write_text("16\n")
    for arguments in (("up", "--port-base", "0"), ("up", "--detach", "--port-base", "0")):
        done = cli.run(*arguments)
        assert done.returncode == 1
        assert f"{data} holds data of PostgreSQL 16, this is 18" in done.stderr
        assert "fix: if its data in" in done.stderr
        assert cli.alive == []
        assert cli.listening == []


def test_an_unreachable_database_server_is_reported_and_no_process_is_left(cli):
    cli.environment["DATABASE_URL"] = "postgresql://postgres:hunter2@127.0.0.1:1/postgres"
    done = cli.run("up", "--port-base", "0")
    assert done.returncode == 1
    assert "cannot create the database of svc_" in done.stderr
    assert "hunter2" not in done.stderr
    assert cli.alive == []
    assert cli.listening == []


def test_ports_are_checked_before_any_process_starts(cli):
    base = free_base()
    with socket.create_server(("127.0.0.1", base + 80)):
        done = cli.run("up", "--port-base", str(base))
    assert done.returncode == 1
    assert f"port {base + 80}, which ingress needs, is in use by" in done.stderr
    assert f"(pid {os.getpid()})" in done.stderr
    assert not (cli.folder / "logs" / "postgres.log").exists()
    assert cli.alive == []


@pytest.mark.parametrize("home", ["/proc", "/dev/null/home"])
def test_a_home_folder_that_is_not_writable_is_reported_with_a_fix(tmp_path, home):
    cli = Cli(tmp_path, HOME=home)
    for name in ("SHOPMESH_STATE_DIR", "XDG_STATE_HOME"):
        cli.environment.pop(name, None)
    done = cli.run("up")
    assert done.returncode == 1
    assert "cannot keep a stack in" in done.stderr
    assert "--state-dir" in done.stderr


@pytest.mark.parametrize("arguments", [("svc_none=2",), ("svc_order",), ("svc_order=0",), ("svc_order=x",)])
def test_invalid_replicas_are_an_error(cli, arguments):
    done = cli.run("up", "--replicas", *arguments)
    assert done.returncode == 2
    assert not cli.folder.exists()


def test_a_folder_of_something_else_is_neither_used_nor_wiped(cli):
    cli.folder.mkdir()
    (cli.folder / "mine").write_text("precious")
    done = cli.run("up")
    assert done.returncode == 1
    assert "is used for something else" in done.stderr
    assert cli.run("down", "--wipe").returncode == 0
    assert [file.name for file in cli.folder.iterdir()] == ["mine"]


def test_down_with_wipe_deletes_the_stack(cli):
    cli.state.create()
    home = data_dir_for(cli.folder / "postgres", unprivileged_account())
    assert cli.run("down", "--wipe").returncode == 0
    assert not home.exists()
    assert not cli.folder.exists()


def test_down_without_a_stack_is_no_error(cli):
    done = cli.run("down")
    assert (done.returncode, done.stderr) == (0, "nothing was running\n")
