"""What `verify` reads of the event bus."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
import redis.asyncio as redis
from redis.exceptions import NoPermissionError

from chassis.events.bus import Event
from chassis.events.redis_bus import RedisBus
from mesh.errors import StackError
from mesh.qa.verify.bus_reader import RedisReader
from mesh.stack import redis_accounts
from mesh.stack.servers.redis import Redis

ORDERS, PAYMENTS = "shop.order.v1.Order", "shop.payment.v1.Payment"


def event(topic, key, *, age_days=0):
    time = (datetime.now(UTC) - timedelta(days=age_days)).isoformat()
    return Event(id=str(uuid.uuid4()), type="x", topic=topic, key=key, source="me", time=time, payload=b"")


async def read(reader, services, before):
    return {row[2]: row async for page in reader.pages(services, before) for row in page}


async def test_events_are_read_with_whether_the_databases_must_know_them(redis_url):
    mark = uuid.uuid4().hex
    first = [event(ORDERS, f"{mark}-{number}") for number in range(1_500)]
    late, old, other = event(ORDERS, f"{mark}-late"), event(ORDERS, f"{mark}-old", age_days=8), event(PAYMENTS, mark)
    reader = RedisReader(redis_url)
    async with RedisBus.open(redis_url) as bus:
        await bus.publish([*first, old, other])
        before = await reader.ends()
        await bus.publish([late])
    rows = await read(reader, ["svc_order"], before)
    assert [rows[one.key] for one in first] == [(one.id, ORDERS, one.key, True) for one in first]
    assert rows[late.key] == (late.id, ORDERS, late.key, False)
    assert rows[old.key] == (old.id, ORDERS, old.key, False)
    assert mark not in rows
    assert mark in await read(reader, ["svc_order", "svc_payment"], before)


async def test_a_bus_that_does_not_answer_is_an_error(tmp_path):
    with pytest.raises(StackError, match="event bus cannot be read"):
        await RedisReader(f"unix://{tmp_path}/none.sock").ends()


async def test_the_account_of_verify_reads_every_topic_and_changes_nothing(tmp_path):
    account = redis_accounts.reader("verify", str)
    writer = redis_accounts.publisher("svc_order", str)
    async with Redis(tmp_path, accounts=[account, writer]) as server:
        reader = RedisReader(server.url_of(account))
        assert await reader.ends() == {}
        async with RedisBus.open(server.url_of(writer)) as bus:
            await bus.publish([event(ORDERS, "o")])
        assert list(await reader.ends()) == [b"{bus}:" + ORDERS.encode()]
        assert list(await read(reader, ["svc_order"], {})) == ["o"]
        async with redis.from_url(server.url_of(account), protocol=2) as client:
            for command in (("XADD", "{bus}:" + ORDERS, "*", "a", "b"), ("DEL", "{bus}:" + ORDERS), ("FLUSHALL",)):
                with pytest.raises(NoPermissionError):
                    await client.execute_command(*command)
        with pytest.raises(StackError, match="event bus cannot be read"):
            await RedisReader(server.url).ends()
