import os
import signal

import psutil
import pytest
import redis.asyncio as redis

from mesh.errors import StackError
from mesh.stack.servers.redis import Redis


async def test_acknowledged_writes_survive_a_killed_server(tmp_path):
    async with Redis(tmp_path) as server, redis.from_url(server.url) as client:
        await client.xadd("stream", {"n": "7"})
        os.kill((await client.info("server"))["process_id"], signal.SIGKILL)
    async with Redis(tmp_path) as server, redis.from_url(server.url) as client:
        assert await client.xlen("stream") == 1


async def test_it_fsyncs_each_write_and_evicts_nothing(tmp_path):
    async with Redis(tmp_path) as server, redis.from_url(server.url, decode_responses=True) as client:
        assert await client.config_get("appendfsync") == {"appendfsync": "always"}
        assert await client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


async def test_it_listens_on_a_unix_socket_only(tmp_path):
    async with Redis(tmp_path) as server, redis.from_url(server.url) as client:
        pid = (await client.info("server"))["process_id"]
        assert not psutil.Process(pid).net_connections("inet")


async def test_it_starts_where_a_killed_server_left_its_socket(tmp_path):
    sockets = tmp_path / "s"
    sockets.mkdir()
    async with Redis(tmp_path / "data", sockets) as server, redis.from_url(server.url) as client:
        os.kill((await client.info("server"))["process_id"], signal.SIGKILL)
    assert (sockets / "redis.sock").exists()
    async with Redis(tmp_path / "data", sockets) as server, redis.from_url(server.url) as client:
        assert await client.ping()


async def test_a_damaged_file_is_reported_with_a_fix_that_deletes_nothing_else(tmp_path):
    server = Redis(tmp_path)
    (tmp_path / "appendonlydir").mkdir(parents=True)
    (tmp_path / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense")
    (tmp_path / "appendonly.aof").write_text("nonsense")
    with pytest.raises(StackError) as error:
        async with server:
            pass
    assert str(server.folder) in error.value.fix
    assert "--wipe" not in error.value.fix
