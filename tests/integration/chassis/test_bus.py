"""The contract of an event bus, for both: delivery in order per key, at least once per group, under any crash."""

import asyncio
import gc
import os
import signal
import sys
import uuid
from collections import defaultdict
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace

import pytest
import redis.asyncio
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from redis.crc import key_slot
from redis.exceptions import RedisError

from chassis import outbox
from chassis.event_settings import EventSettings
from chassis.events.bus import Event, EventsLost
from chassis.events.kafka_bus import KafkaBus
from chassis.events.redis_bus import RedisBus
from chassis.testing import eventually
from mesh.stack.servers.redis import Redis

TOPIC = "shop.toy.v1.Toy"
PATIENCE = 60.0  # a Kafka group takes its time to notice that a member is gone

#: Joins a group, takes what is there, acknowledges nothing, and waits to be killed.
CRASHER = """
import asyncio, sys
from chassis.events.kafka_bus import KafkaBus
from chassis.events.redis_bus import RedisBus

async def main(kind, address, prefix, group, topic):
    async with {"redis": RedisBus, "kafka": KafkaBus}[kind].open(address, prefix) as bus:
        async with bus.subscribe(group, [topic]) as subscription:
            async for batch in subscription:
                print(len(batch), flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@asynccontextmanager
async def python(program, *words, cwd):
    """A process of its own, killed at the end."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, *words),
        stdout=asyncio.subprocess.PIPE,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((".", "gen"))},
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


class OnRedis:
    kind = "redis"
    bus = RedisBus

    def __init__(self, address, prefix):
        self.address = address
        self.prefix = prefix

    async def publish_strange(self, topic):
        """Publish records that no service of ours would."""
        async with redis.asyncio.from_url(self.address, protocol=2) as client:
            stream = f"{{{self.prefix}bus}}:{topic}"
            await client.xadd(stream, {"hello": "world"})
            await client.xadd(stream, {b"ce_type": b"\xff\xfe", b"ce_subject": b"a\0b", b"\xff": b""})
        return 2


class OnKafka:
    kind = "kafka"
    bus = KafkaBus

    def __init__(self, address, prefix):
        self.address = address
        self.prefix = prefix

    async def publish_strange(self, topic):
        async with AIOKafkaProducer(bootstrap_servers=self.address) as producer:
            await producer.send_and_wait(self.prefix + topic, value=None, key=b"k")
            headers = [("ce_type", b"\xff\xfe"), ("ce_subject", b"a\0b"), ("ce_id", None)]
            await producer.send_and_wait(self.prefix + topic, value=b"junk", headers=headers)
        return 2


@pytest.fixture(params=["redis", pytest.param("kafka", marks=[pytest.mark.kafka])])
def server(request, event_prefix):
    if request.param == "redis":
        return OnRedis(request.getfixturevalue("redis_url"), event_prefix)
    return OnKafka(request.getfixturevalue("kafka_bootstrap"), event_prefix)


@pytest.fixture
async def bus(server):
    async with server.bus.open(server.address, server.prefix) as bus:
        yield bus


def event(number=0, *, key="k", topic=TOPIC):
    return Event(
        id=str(uuid.uuid4()),
        type="shop.toy.v1.ToyMoved",
        topic=topic,
        key=key,
        source="svc_toy",
        time="2026-01-01T00:00:00.000001Z",
        payload=bytes([number % 256, 0, 255]),
        traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01",
    )


@asynccontextmanager
async def taking(bus, group, topics=(TOPIC,)):
    """Join a group; yield a function that receives a number of events."""
    async with bus.subscribe(group, topics) as subscription, aclosing(subscription.__aiter__()) as batches:

        async def take(count, *, acknowledge=True):
            events = []
            async with asyncio.timeout(PATIENCE):
                while len(events) < count:
                    events.extend(await anext(batches))
                    if acknowledge:
                        await subscription.acknowledge()
            return events

        yield take


async def take(bus, group, count, topics=(TOPIC,), *, acknowledge=True):
    async with taking(bus, group, topics) as take:
        return await take(count, acknowledge=acknowledge)


async def test_a_published_event_is_delivered_unchanged(bus):
    sent = [event(number, key=f"k-{number}") for number in range(3)]
    await bus.publish(sent)
    assert sorted(await take(bus, "g", 3), key=sent.index) == sent


async def test_an_event_of_the_outboxs_largest_size_is_delivered(bus):
    sent = replace(event(), payload=bytes(outbox.LARGEST_BYTES), key="k" * 256)
    await bus.publish([sent])
    assert await take(bus, "g", 1) == [sent]


async def test_events_of_a_key_are_delivered_in_order(bus):
    sent = [event(number, key=f"key-{number % 7}") for number in range(700)]
    for start in range(0, 700, 100):
        await bus.publish(sent[start : start + 100])
    came = defaultdict(list)
    for one in await take(bus, "g", 700):
        came[one.key].append(one)
    assert came == {f"key-{key}": [one for one in sent if one.key == f"key-{key}"] for key in range(7)}


async def test_each_group_gets_all_events_and_a_new_one_starts_at_the_oldest(bus):
    sent = [event(number) for number in range(5)]
    await bus.publish(sent)
    assert await take(bus, "first", 5) == sent
    assert await take(bus, "second", 5) == sent


async def test_only_unacknowledged_events_are_delivered_again(bus):
    sent = [event(number) for number in range(4)]
    await bus.publish(sent[:2])
    assert await take(bus, "g", 2) == sent[:2]
    await bus.publish(sent[2:])
    assert await take(bus, "g", 2, acknowledge=False) == sent[2:]
    assert await take(bus, "g", 2, acknowledge=False) == sent[2:]
    assert await take(bus, "g", 2) == sent[2:]
    last = event()
    await bus.publish([last])
    assert await take(bus, "g", 1) == [last]


async def test_unacknowledged_events_of_a_crashed_consumer_are_delivered_to_the_next(bus, server, repository):
    sent = [event(number) for number in range(3)]
    await bus.publish(sent)
    words = (server.kind, server.address, server.prefix, "g", TOPIC)
    async with asyncio.timeout(PATIENCE), python(CRASHER, *words, cwd=repository) as child:
        assert int(await child.stdout.readline()) == 3
    assert await take(bus, "g", 3) == sent


#: Reads and acknowledges as the leader that it is, with a lease that a test can outwait.
LEADER = """
import asyncio, os, signal, sys
from chassis.events import redis_bus as bus_redis

read = bus_redis._Subscription._read
acknowledged = []

async def read_too_late(subscription, position):
    if acknowledged:
        acknowledged.clear()
        os.kill(os.getpid(), signal.SIGSTOP)
    return await read(subscription, position)

async def main(address, prefix, group, topic, moment):
    bus_redis._LEASE_MS = 1_500
    if moment == "about to read":
        bus_redis._Subscription._read = read_too_late
    async with bus_redis.RedisBus.open(address, prefix) as bus:
        async with bus.subscribe(group, [topic]) as subscription:
            async for batch in subscription:
                print(*(event.id for event in batch), flush=True)
                await subscription.acknowledge()
                acknowledged.append(batch)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("moment", ["wherever it is", "about to read"])
async def test_a_leader_paused_longer_than_its_lease_reads_nothing_more(redis_url, event_prefix, repository, moment):
    """Another leads by then, and two readers would break the order."""
    async with (
        RedisBus.open(redis_url, event_prefix) as bus,
        python(LEADER, redis_url, event_prefix, "g", TOPIC, moment, cwd=repository) as stopped,
    ):
        first, *rest = [event(number) for number in range(200)]
        await bus.publish([first])
        assert (await stopped.stdout.readline()).decode().split() == [first.id]
        await eventually(lambda: is_acknowledged(bus))
        if moment == "wherever it is":  # else it stops itself
            stopped.send_signal(signal.SIGSTOP)
        async with taking(bus, "g") as take:
            await bus.publish(rest[:1])
            came = await take(1)
            stopped.send_signal(signal.SIGCONT)
            for one in rest[1:]:
                await bus.publish([one])
            while rest[-1] not in came:
                came += await take(1)
            assert list(dict.fromkeys(came)) == rest
        stopped.kill()
        assert await stopped.stdout.read() == b""


async def test_of_two_versions_of_a_service_with_different_topics_one_reads(redis_url, event_prefix):
    """While one replaces the other: two readers would break the order."""
    async with RedisBus.open(redis_url, event_prefix) as bus:
        sent = [event(number) for number in range(4)]
        async with taking(bus, "g", [TOPIC, "shop.toy.v1.Other"]) as newer, taking(bus, "g") as older:
            waiting = {asyncio.create_task(one(1)) for one in (older, newer)}
            await bus.publish(sent[:1])
            (reader,), waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            assert await reader == sent[:1]
            await bus.publish(sent[1:])
            for one in waiting:
                one.cancel()
            outcomes = await asyncio.gather(*waiting, return_exceptions=True)
            assert [type(one) for one in outcomes] == [asyncio.CancelledError]
        assert await take(bus, "g", 3) == sent[1:]


@pytest.fixture
async def small_redis(tmp_path):
    """A server with room for some thousand events."""
    async with Redis(tmp_path) as server, RedisBus.open(server.url) as bus:
        used = (await bus._client.info("memory"))["used_memory"]
        await bus._client.config_set("maxmemory", used + 6_000_000)
        yield bus


def large(count):
    return [replace(event(), payload=bytes(2_000)) for _ in range(count)]


async def test_a_full_redis_deletes_acknowledged_events_and_accepts_new_ones(small_redis):
    async with taking(small_redis, "g") as take:
        for _ in range(60):
            sent = large(100)
            await small_redis.publish(sent)
            await small_redis.publish([event(topic="shop.toy.v1.NobodyReads") for _ in range(100)])
            assert await take(100) == sent


async def test_a_full_redis_rejects_events_rather_than_lose_an_unacknowledged_one(small_redis):
    sent = large(100)
    await small_redis.publish(sent)
    assert await take(small_redis, "reads", 100) == sent
    assert await take(small_redis, "read, and crashed", 100, acknowledge=False) == sent
    with suppress(RedisError):
        for _ in range(100):
            await small_redis.publish(more := large(100))
            sent += more
    assert 1_000 < len(sent) < 9_000, "it was refused at some time"
    assert await take(small_redis, "read, and crashed", len(sent)) == sent
    assert await take(small_redis, "reads", len(sent) - 100) == sent[100:]
    await small_redis.publish([event()])


async def is_acknowledged(bus):
    (group,) = await bus._client.xinfo_groups(bus._prefix + TOPIC)
    return group["pending"] == 0


async def test_the_next_leader_continues_where_the_last_one_ended(bus):
    sent = [event(number) for number in range(30)]
    await bus.publish(sent[:10])
    came = []

    async def read(take, until):
        while len(came) < until:
            came.extend(await take(1))

    async with taking(bus, "g") as second:
        async with taking(bus, "g") as first:
            readers = [asyncio.create_task(read(one, 10)) for one in (first, second)]
            async with asyncio.timeout(PATIENCE):
                await asyncio.wait(readers, return_when=asyncio.FIRST_COMPLETED)
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)
        await bus.publish(sent[10:])
    async with taking(bus, "g") as third:
        await read(third, 30)
    assert list(dict.fromkeys(came)) == sent


async def test_one_subscription_reads_several_topics(bus):
    sent = [event(number, topic=topic) for topic in (TOPIC, "shop.toy.v1.Other") for number in range(3)]
    await bus.publish(sent)
    came = await take(bus, "g", 6, (TOPIC, "shop.toy.v1.Other"))
    assert [one for one in came if one.topic == TOPIC] == sent[:3]
    assert [one for one in came if one.topic != TOPIC] == sent[3:]


async def test_a_subscriber_to_a_new_topic_gets_its_events_at_once(bus):
    async with taking(bus, "g") as take:
        hearing = asyncio.create_task(take(1))
        sent = event()
        await bus.publish([sent])
        assert await hearing == [sent]


async def test_foreign_records_are_delivered_and_block_no_others(bus, server):
    """Any client of the broker may write anything; the consumer dead-letters it."""
    first, last = event(), event()
    await bus.publish([first])
    strange = await server.publish_strange(TOPIC)
    await bus.publish([last])
    came = await take(bus, "g", 2 + strange)
    assert {first, last} < set(came)
    others = [one for one in came if one not in (first, last)]
    assert all(one.id == str(uuid.UUID(one.id)) for one in others)
    assert len({one.id for one in others}) == strange
    assert "\0" not in "".join(one.type + one.key + one.traceparent for one in others)
    assert "" in {one.type for one in others}


async def test_the_prefix_separates_meshes(bus, server):
    async with server.bus.open(server.address, server.prefix + "other.") as other:
        mine, theirs = event(1), event(2)
        await bus.publish([mine])
        await other.publish([theirs])
        assert await take(bus, "g", 1) == [mine]
        assert await take(other, "g", 1) == [theirs]


async def test_publishing_no_events_has_no_effect(bus):
    await bus.publish([])


async def test_publishing_to_an_unavailable_bus_raises(server):
    away = {"redis": "unix:///nowhere/redis.sock", "kafka": "127.0.0.1:1"}[server.kind]
    async with asyncio.timeout(PATIENCE), server.bus.open(away, server.prefix) as bus:
        with pytest.raises((RedisError, KafkaError)):
            await bus.publish([event()])


async def test_an_attempt_to_reach_an_unavailable_kafka_leaks_no_client():
    told = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
    bus = KafkaBus(EventSettings(kafka_bootstrap="127.0.0.1:1"))
    for use in (bus.publish([event()]), bus.subscribe("g", [TOPIC]).__aenter__()):
        with pytest.raises(KafkaError):
            await use
    gc.collect()
    assert told == []


def test_an_event_is_restored_from_its_headers():
    sent = event()
    assert Event.from_headers(sent.topic, sent.headers(), sent.payload) == sent


def test_an_event_without_an_id_gets_a_stable_one():
    """So that the inbox recognizes it."""
    ids = {Event.from_headers(TOPIC, {"ce_id": "not a uuid"}, b"payload").id for _ in range(2)}
    others = {Event.from_headers(TOPIC, {}, b"payload").id, Event.from_headers("other", {}, b"payload").id}
    assert len(ids) == 1
    assert len(ids | others) == 3
    assert replace(event(), id=ids.pop())


async def test_a_publisher_learns_when_every_group_has_acknowledged_its_events(bus):
    assert await bus.maintain({})
    positions = await bus.publish([event(number, key=f"k-{number}") for number in range(20)])
    await take(bus, "first", 20)
    assert await bus.maintain(positions)
    await take(bus, "second", 20)
    more = await bus.publish([event(20)], positions)
    await take(bus, "first", 1)
    await take(bus, "second", 1, acknowledge=False)
    assert not await bus.maintain(more)
    await take(bus, "second", 1)
    assert await bus.maintain(more)


async def test_a_bus_that_came_back_empty_is_noticed(bus, server):
    positions = await bus.publish([event(number, key=f"k-{number}") for number in range(20)])
    async with server.bus.open(server.address, server.prefix + "new.") as empty:
        async with empty.subscribe("g", [TOPIC]):  # creates what is missing
            with pytest.raises(EventsLost):
                await empty.maintain(positions)
        with pytest.raises(EventsLost):
            await empty.publish([event(number, key=f"k-{number}") for number in range(20)], positions)


async def test_the_positions_of_another_kind_of_bus_are_lost_events(bus, server):
    position = {"redis": {f"{TOPIC}/0": "41"}, "kafka": {TOPIC: "1700000000000-0"}}[server.kind]
    with pytest.raises(EventsLost):
        await bus.maintain(position)


async def test_the_keys_of_the_redis_bus_are_in_one_slot_of_a_cluster(redis_url, event_prefix):
    """Or a transaction of two topics, and the read under the lease, would be refused there."""
    async with RedisBus.open(redis_url, event_prefix) as bus, bus.subscribe("g", [TOPIC]) as subscription:
        keys = (bus._prefix + TOPIC, bus._prefix + "shop.toy.v1.Other", subscription._lease)
        assert len({key_slot(key.encode()) for key in keys}) == 1
