"""Each service reaches Redis with accounts of its own, which can do what the contract says and no more."""

from types import SimpleNamespace

import pytest
import pytest_asyncio
import redis.asyncio as redis
from google.protobuf.wrappers_pb2 import StringValue
from redis.exceptions import NoPermissionError, ResponseError

from chassis.cache import Cache
from chassis.events.bus import Event, owner_of
from chassis.events.redis_bus import RedisBus
from chassis.rpc.redis_counter import RedisCounter
from mesh.services import SERVICES
from mesh.stack import redis_accounts
from mesh.stack.data_dirs import socket_folder
from mesh.stack.redis_servers import RedisServers
from mesh.stack.secrets import Secrets
from mesh.stack.servers.redis import CACHE, Redis
from mesh.stack.state import State
from shop.topics import TOPICS

PAYMENTS, ORDERS = "{bus}:shop.payment.v1.Payment", "{bus}:shop.order.v1.Order"


def password(name):
    return f"of-{name}"


def event(topic):
    return Event(
        id="0", type="shop.toy.v1.Toyed", topic=topic, key="k", source=owner_of(topic), time="", payload=b"paid"
    )


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(tmp_path_factory):
    uses = (redis_accounts.publisher, redis_accounts.consumer, redis_accounts.cache)
    accounts = {use.__name__: {name: use(name, password) for name in SERVICES} for use in uses}
    every = [account for use in accounts.values() for account in use.values()]
    async with Redis(tmp_path_factory.mktemp("accounts"), accounts=every) as running:

        def url(use, service):
            return running.url_of(accounts[use][service])

        yield SimpleNamespace(url=url, anonymous=running.url)


def test_each_topic_can_be_published_by_its_owner_alone():
    publishers = {
        topic: [name for name in SERVICES if f"{{bus}}:{topic}" in redis_accounts.publisher(name, password).keys]
        for topic in TOPICS
    }
    assert publishers == {topic: [owner_of(topic)] for topic in TOPICS}


async def test_an_account_cannot_publish_the_topic_of_another_owner(server):
    for use in ("publisher", "consumer", "cache"):
        async with redis.from_url(server.url(use, "svc_order")) as client:
            with pytest.raises(NoPermissionError):
                await client.xadd(PAYMENTS, {"payload": "a forged payment"})
    async with redis.from_url(server.url("consumer", "svc_order")) as client:
        with pytest.raises(ResponseError, match=r"can't run this command|NOPERM|ACL"):
            await client.eval("return redis.call('xadd', KEYS[1], '*', 'payload', 'forged')", 1, PAYMENTS)


async def test_events_pass_from_the_account_of_their_owner_to_that_of_a_consumer(server):
    payment = (server.url("publisher", "svc_payment"), "", server.url("consumer", "svc_payment"))
    order = (server.url("publisher", "svc_order"), "", server.url("consumer", "svc_order"))
    topics = [name for name, topic in TOPICS.items() if "svc_order" in topic.consumers]
    assert "shop.payment.v1.Payment" in topics
    async with RedisBus.open(*payment) as publisher, RedisBus.open(*order) as consumer:
        async with consumer.subscribe("svc_order", topics) as subscription:
            positions = await publisher.publish([event("shop.payment.v1.Payment")])
            assert not await publisher.maintain(positions)
            async for events in subscription:
                assert [one.payload for one in events] == [b"paid"]
                await subscription.acknowledge()
                break
        assert await publisher.maintain(positions)


async def test_an_account_cannot_consume_a_topic_that_does_not_name_its_service(server):
    async with RedisBus.open(server.url("publisher", "svc_user"), "", server.url("consumer", "svc_user")) as bus:
        with pytest.raises(NoPermissionError):
            async with bus.subscribe("svc_user", ["shop.order.v1.Order"]):
                pass


@pytest.mark.parametrize(
    "command",
    ["DEL", "UNLINK", "SET {} x", "EXPIRE {} 0", "RENAME {} other", "XTRIM {} MAXLEN 0", "XGROUP DESTROY {} svc_order"],
)
async def test_a_consumer_cannot_change_a_stream(server, command):
    name, _, rest = (command if "{}" in command else f"{command} {{}}").partition("{}")
    async with redis.from_url(server.url("consumer", "svc_order")) as client:
        with pytest.raises(NoPermissionError):
            await client.execute_command(*name.split(), PAYMENTS, *rest.split())


async def test_the_commands_of_a_lease_fail_on_a_stream(server):
    async with redis.from_url(server.url("publisher", "svc_payment")) as owner:
        await owner.xadd(PAYMENTS, {"payload": "kept"})
        length = await owner.xlen(PAYMENTS)
        async with redis.from_url(server.url("consumer", "svc_order")) as client:
            for words in (("GETEX", PAYMENTS, "PX", "1"), ("GETDEL", PAYMENTS)):
                with pytest.raises(ResponseError, match="WRONGTYPE"):
                    await client.execute_command(*words)
            await client.setnx(PAYMENTS, "x")
        assert await owner.xlen(PAYMENTS) == length


async def test_a_cache_and_its_counters_are_those_of_one_service(server):
    url = server.url("cache", "svc_catalog")
    cache, counter = Cache.connect(url, "svc_catalog"), RedisCounter(url)
    loads = []

    async def load():
        loads.append(1)
        return StringValue(value="a page")

    try:
        for _ in range(2):
            assert (await cache.get_or_load("lists", "page", StringValue, 60, load)).value == "a page"
        await cache.invalidate("lists")
        assert (await cache.get_or_load("lists", "page", StringValue, 60, load)).value == "a page"
        assert len(loads) == 2
        key = "rate:/shop.catalog.v1.CatalogService/ListProducts:client:192.0.2.1"
        assert (await counter.acquire(key, 5, 60.0)).remaining == 4
    finally:
        await cache.close()
        await counter.close()
    async with redis.from_url(server.url("cache", "svc_order")) as other:
        for key in ("{svc_catalog:lists}", "rate:/shop.user.v1.AuthService/Login:client:192.0.2.1"):
            with pytest.raises(NoPermissionError):
                await other.delete(key)


async def test_without_an_account_a_client_reads_and_writes_nothing(server):
    async with redis.from_url(server.anonymous) as client:
        assert await client.ping()
        for words in (("XADD", ORDERS, "*", "payload", "x"), ("XRANGE", ORDERS, "-", "+"), ("FLUSHALL",)):
            with pytest.raises(NoPermissionError):
                await client.execute_command(*words)


async def test_the_cache_evicts_and_stores_nothing_on_disk(tmp_path):
    async with Redis(tmp_path, settings=CACHE) as server, redis.from_url(server.url, decode_responses=True) as client:
        assert await client.config_get("maxmemory-policy") == {"maxmemory-policy": "allkeys-lru"}
        await client.set("entry", "x")
    assert not [path.name for path in tmp_path.iterdir() if path.suffix in (".aof", ".rdb") or path.is_dir()]


def test_a_stack_separates_the_cache_from_the_bus_and_each_service_from_the_others(tmp_path, monkeypatch):
    for name in ("REDIS_URL", "CACHE_URL"):
        monkeypatch.delenv(name, raising=False)
    state = State(tmp_path / "state")
    state.create()
    with socket_folder(None) as run:
        servers = RedisServers(state.folder, run, Secrets(state), "redis")
        assert [program.name for program in servers.programs()] == ["redis", "redis_cache"]
        on_kafka = RedisServers(state.folder, run, Secrets(state), "kafka")
        assert [program.name for program in on_kafka.programs()] == ["redis_cache"]
        urls = [url for name in SERVICES for url in servers.environment(name).values()]
    assert len(set(urls)) == 3 * len(SERVICES)
