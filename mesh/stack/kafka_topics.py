"""Creates the topics of the contract on a Kafka cluster, and grants each service its rights there.

`python -m mesh.stack.kafka_topics` reads KAFKA_* as services do, with the account of an operator; it grants rights with
KAFKA_GRANT=true.
"""

import asyncio
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, NoError, TopicAlreadyExistsError, for_code
from aiokafka.protocol.admin import CreateAclsRequest

from chassis.events.bus import owner_of
from chassis.settings import Settings
from mesh.errors import StackError
from mesh.services import SERVICES
from shop.topics import TOPICS

_ALLOW, _LITERAL = 3, 3  # of Kafka's AclPermissionType and PatternType


class Resource(IntEnum):
    """Kafka's ResourceType."""

    TOPIC = 2
    GROUP = 3


class Operation(IntEnum):
    """Kafka's AclOperation."""

    READ = 3
    WRITE = 4
    DESCRIBE = 8


@dataclass(frozen=True, slots=True)
class Right:
    """What an account, of the name of a service, may do."""

    account: str
    operation: Operation
    resource: Resource
    name: str


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic of the contract on the cluster: its partitions there and in the contract, and whether it is new."""

    name: str
    partitions: int
    declared: int
    is_new: bool


def rights(service: str, prefix: str = "") -> Iterator[Right]:
    """Yield the rights of a service: it publishes its own topics, and consumes those that name it as a consumer."""
    for topic in TOPICS.values():
        name = prefix + topic.name
        if owner_of(topic.name) == service:
            yield Right(service, Operation.WRITE, Resource.TOPIC, name)
            # The relay reads how far its consumers are.
            for consumer in topic.consumers:
                yield Right(service, Operation.DESCRIBE, Resource.GROUP, prefix + consumer)
        if service in topic.consumers:
            yield Right(service, Operation.READ, Resource.TOPIC, name)
            yield Right(service, Operation.READ, Resource.GROUP, prefix + service)


async def create(settings: Settings, *, grant: bool) -> list[TopicState]:
    """Create the topics that there are not; with `grant`, also the rights of all services. Raises StackError.

    An existing topic stays as it is: more partitions would break the order of its keys.
    """
    try:
        admin = AIOKafkaAdminClient(**settings.kafka_connection())
        try:
            await admin.start()
            new = {name for name in TOPICS if await _create_topic(admin, settings.event_prefix, name)}
            for right in dict.fromkeys(
                right for service in SERVICES for right in rights(service, settings.event_prefix)
            ):
                if grant:
                    await _grant(admin, right)
            found = await admin.describe_topics([settings.event_prefix + name for name in TOPICS])
        finally:
            await admin.close()
    except (KafkaError, OSError) as error:
        where = settings.kafka_bootstrap or "no address"
        raise StackError(f"cannot create the topics at {where}: {error!r}", fix="check the settings KAFKA_*") from error
    counts = {topic["topic"].removeprefix(settings.event_prefix): len(topic["partitions"]) for topic in found}
    return [TopicState(name, counts.get(name, 0), topic.partitions, name in new) for name, topic in TOPICS.items()]


async def _create_topic(admin: AIOKafkaAdminClient, prefix: str, name: str) -> bool:
    topic = TOPICS[name]
    retention = {"retention.ms": str(round(topic.retention_seconds * 1000))}
    # aiokafka requires an empty assignment for the cluster's default replication.
    new = NewTopic(prefix + name, topic.partitions, -1, replica_assignments={}, topic_configs=retention)
    response: Any = await admin.create_topics([new])
    error = for_code(response.topic_errors[0][1])
    if error not in (NoError, TopicAlreadyExistsError):
        raise error(new.name)
    return error is NoError


async def _grant(admin: AIOKafkaAdminClient, right: Right) -> None:
    request = CreateAclsRequest(
        right.resource, right.name, _LITERAL, f"User:{right.account}", "*", right.operation, _ALLOW
    )
    response: Any = await admin._send_request(request)  # noqa: SLF001  aiokafka has the message and no method for it
    error = for_code(response.creation_responses[0][0])
    if error is not NoError:
        raise error(right.name)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    try:
        asyncio.run(create(Settings.from_env(), grant=os.environ.get("KAFKA_GRANT") == "true"))
    except StackError as failure:
        raise SystemExit(str(failure)) from None
