"""Each service reaches Kafka with an account of its own, which can do what the contract says and no more."""

import pytest
import pytest_asyncio
from aiokafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError

from chassis.events.bus import Event, owner_of
from chassis.events.kafka_bus import KafkaBus
from chassis.settings import Settings
from mesh.services import SERVICES
from mesh.stack import kafka_topics
from mesh.stack.kafka_topics import Operation, Resource, rights
from mesh.stack.ports import Ports, free_base
from mesh.stack.servers import kafka
from shop.topics import TOPICS

PAYMENT = "shop.payment.v1.Payment"

pytestmark = pytest.mark.kafka
needs_kafka = pytest.mark.skipif(kafka.missing() is not None, reason=f"NOT TESTED on Kafka: {kafka.missing()}")


def event(topic):
    return Event(
        id="0", type="shop.toy.v1.Toyed", topic=topic, key="k", source=owner_of(topic), time="", payload=b"paid"
    )


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def account(tmp_path_factory):
    """A broker with the topics of the contract; returns the settings of an account."""
    ports = Ports(free_base())
    accounts = {name: f"of-{name}" for name in (kafka.OPERATOR, *SERVICES)}
    folder = tmp_path_factory.mktemp("kafka")
    broker = kafka.Kafka(folder, port=ports.kafka, controller_port=ports.kafka_controller, accounts=accounts)

    def settings(name):
        return Settings(
            kafka_bootstrap=broker.bootstrap,
            kafka_security="SASL_PLAINTEXT",
            kafka_sasl_mechanism="PLAIN",
            kafka_username=name,
            kafka_password=accounts[name],
        )

    async with broker:
        created = await kafka_topics.create(settings(kafka.OPERATOR), grant=True)
        assert {one.name for one in created if one.is_new} == set(TOPICS)
        yield settings


def test_each_topic_can_be_published_by_its_owner_alone():
    writers = {
        topic: [right.account for name in SERVICES for right in rights(name) if (right.operation, right.name) == wanted]
        for topic in TOPICS
        for wanted in [(Operation.WRITE, topic)]
    }
    assert writers == {topic: [owner_of(topic)] for topic in TOPICS}


def test_a_service_reads_the_topics_that_name_it_and_as_its_own_group():
    for name in SERVICES:
        reads = {(right.resource, right.name) for right in rights(name, "p.") if right.operation is Operation.READ}
        topics = {(Resource.TOPIC, f"p.{one.name}") for one in TOPICS.values() if name in one.consumers}
        assert reads == topics | ({(Resource.GROUP, f"p.{name}")} if topics else set())


@needs_kafka
async def test_topics_have_the_partitions_of_the_contract_and_are_created_once(account):
    states = await kafka_topics.create(account(kafka.OPERATOR), grant=True)
    assert {one.name: (one.partitions, one.is_new) for one in states} == {
        name: (topic.partitions, False) for name, topic in TOPICS.items()
    }


@needs_kafka
async def test_an_account_can_neither_publish_nor_consume_what_the_contract_does_not_say(account):
    async with KafkaBus.open_with(account("svc_order")) as bus:
        with pytest.raises(TopicAuthorizationFailedError):
            await bus.publish([event(PAYMENT)])
    async with KafkaBus.open_with(account("svc_user")) as bus:
        with pytest.raises((TopicAuthorizationFailedError, GroupAuthorizationFailedError)):
            async with bus.subscribe("svc_user", [PAYMENT]) as subscription:
                await anext(aiter(subscription))


@needs_kafka
async def test_events_pass_from_the_account_of_their_owner_to_that_of_a_consumer(account):
    async with KafkaBus.open_with(account("svc_payment")) as publisher, KafkaBus.open_with(account("svc_order")) as bus:
        positions = await publisher.publish([event(PAYMENT)])
        async with bus.subscribe("svc_order", [PAYMENT]) as subscription:
            async for events in subscription:
                assert [one.payload for one in events] == [b"paid"]
                await subscription.acknowledge()
                break
        assert await publisher.maintain(positions)
