"""How far the partitions and consumer groups of a Kafka cluster are."""

from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from chassis.events.bus import EventsLost, Positions

_REQUEST_MS = 10_000


class KafkaOffsets:
    """Reads offsets, on connections that are opened when first used."""

    def __init__(self, connection: Mapping[str, Any], prefix: str) -> None:
        """Read those of topics and groups whose names begin with `prefix`; `connection` are options of a client."""
        self._connection = connection
        self._prefix = prefix
        self._admin: AIOKafkaAdminClient | None = None
        self._consumer: AIOKafkaConsumer | None = None

    async def all_reached(self, positions: Positions) -> bool:
        """Return whether every group of these partitions' topics has committed everything up to the positions.

        Raises EventsLost when a partition ends before its position, or begins after what a group has committed.
        """
        try:
            last = {self._partition(name): int(offset) for name, offset in positions.items()}
        except ValueError:
            raise EventsLost("the positions are those of another bus") from None
        try:
            return await self._all_reached(last)
        except KafkaError:
            await self.close()
            raise

    async def close(self) -> None:
        """Close the connections."""
        admin, consumer, self._admin, self._consumer = self._admin, self._consumer, None, None
        if consumer is not None:
            await consumer.stop()
        if admin is not None:
            await admin.close()

    async def _all_reached(self, last: Mapping[TopicPartition, int]) -> bool:
        admin, consumer = await self._connect()
        ends = await consumer.end_offsets(list(last))
        begins = await consumer.beginning_offsets(list(last))
        for partition, offset in last.items():
            if ends[partition] <= offset:
                raise EventsLost(f"{partition.topic}/{partition.partition} ends before {offset}")
        reached = True
        for group in await self._groups(admin):
            committed = await admin.list_consumer_group_offsets(group)
            topics = {partition.topic for partition in committed}
            reached &= bool(topics)  # a new group, which may read any topic
            for partition, offset in last.items():
                if partition.topic in topics:
                    done = committed[partition].offset if partition in committed else 0
                    if 0 < done < begins[partition]:
                        raise EventsLost(f"{partition.topic}/{partition.partition} begins after what {group} has read")
                    reached &= done > offset
        return reached

    async def _groups(self, admin: Any) -> list[str]:
        return [name for name, *_ in await admin.list_consumer_groups() if name.startswith(self._prefix)]

    async def _connect(self) -> tuple[Any, Any]:
        if self._admin is None:
            admin = AIOKafkaAdminClient(**self._connection, request_timeout_ms=_REQUEST_MS)
            await admin.start()
            self._admin = admin
        if self._consumer is None:
            consumer = AIOKafkaConsumer(**self._connection, request_timeout_ms=_REQUEST_MS)
            self._consumer = consumer
            await consumer.start()
        return self._admin, self._consumer

    def _partition(self, name: str) -> TopicPartition:
        topic, _, number = name.rpartition("/")
        if not topic:
            raise ValueError(name)
        return TopicPartition(self._prefix + topic, int(number))
