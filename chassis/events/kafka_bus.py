"""The event bus for real use: Kafka, by aiokafka.

`shopmesh topics` creates the topics. No Kafka transactions: aiokafka speaks only their first version, which is not
atomic. Publishing is at least once with the idempotent producer, and the consumer's inbox drops duplicates.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError, ProducerClosed
from aiokafka.structs import ConsumerRecord

from chassis.event_settings import EventSettings
from chassis.events.bus import NO_POSITIONS, Event, EventsLost, Positions
from chassis.events.kafka_offsets import KafkaOffsets

_BATCH = 200
_POLL_MS = 1_000
_MAX_POLL_MS = 3_600_000


class KafkaBus:
    """An event bus on a Kafka cluster."""

    def __init__(self, settings: EventSettings) -> None:
        """Connect as the settings say; their prefix is put before topic and group names."""
        self._connection = settings.kafka_connection()
        self._prefix = settings.event_prefix
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._offsets = KafkaOffsets(self._connection, self._prefix)

    @classmethod
    @asynccontextmanager
    async def open_with(cls, settings: EventSettings) -> AsyncIterator["KafkaBus"]:
        """Yield a bus that connects when first used, and closes its connections at the end."""
        bus = cls(settings)
        try:
            yield bus
        finally:
            await bus._offsets.close()
            await bus._drop_producer()

    @classmethod
    def open(cls, bootstrap: str, prefix: str = "") -> AbstractAsyncContextManager["KafkaBus"]:
        """Open a bus on brokers that need no account."""
        return cls.open_with(EventSettings(kafka_bootstrap=bootstrap, event_prefix=prefix))

    async def publish(self, events: Sequence[Event], positions: Positions = NO_POSITIONS) -> Positions:
        """Return when every event is acknowledged by all in-sync replicas; a position is a partition's last offset."""
        producer = await self._start_producer()
        sent: list[asyncio.Future[Any]] = []
        try:
            for event in events:
                headers = [(name, value.encode()) for name, value in event.headers().items()]
                topic, key = self._prefix + event.topic, event.key.encode()
                sent.append(await producer.send(topic, value=event.payload, key=key, headers=headers))
            records = await asyncio.gather(*sent)
        except KafkaError:
            # After an error the idempotent producer may stay unusable; the rows are still unpublished.
            await self._drop_producer()
            raise
        finally:
            for one in sent:
                one.cancel()  # no caller awaits the rest
        reached = dict(positions)
        for record in records:
            partition = f"{record.topic.removeprefix(self._prefix)}/{record.partition}"
            if record.offset <= int(positions.get(partition, "-1")):
                raise EventsLost(f"{partition} ended before {positions[partition]}")
            reached[partition] = str(max(record.offset, int(reached.get(partition, "-1"))))
        return reached

    async def maintain(self, positions: Positions) -> bool:
        """See chassis.events.bus.Bus; Kafka frees by time what it stores."""
        return await self._offsets.all_reached(positions) if positions else True

    @asynccontextmanager
    async def subscribe(self, group: str, topics: Sequence[str]) -> AsyncIterator["_Subscription"]:
        """Join the group; see chassis.events.bus.Bus."""
        consumer = AIOKafkaConsumer(
            *(self._prefix + topic for topic in topics),
            **self._connection,
            group_id=self._prefix + group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            # Heartbeats notice a consumer that is gone; one that is slow, on a locked table perhaps, goes on.
            max_poll_interval_ms=_MAX_POLL_MS,
        )
        try:
            await consumer.start()
            yield _Subscription(consumer, self._prefix)
        finally:
            await consumer.stop()

    async def _start_producer(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    **self._connection,
                    acks="all",
                    enable_idempotence=True,
                    request_timeout_ms=10_000,
                    linger_ms=0,
                )
                try:
                    await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
            return self._producer

    async def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            # stop() alone would first send its buffer, and wait without limit for an unavailable broker; the relay
            # publishes unacknowledged events again, in order.
            await producer._sender.close()  # noqa: SLF001
            producer._message_accumulator.fail_all(ProducerClosed())  # noqa: SLF001
            await producer.stop()


class _Subscription:
    def __init__(self, consumer: AIOKafkaConsumer, prefix: str) -> None:
        self._consumer = consumer
        self._prefix = prefix

    async def __aiter__(self) -> AsyncIterator[Sequence[Event]]:
        """See chassis.events.bus.Subscription."""
        while True:
            fetched = await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=_BATCH)
            # All partitions in one batch: a commit covers every partition that was fetched, applied or not.
            if events := [self._event(record) for records in fetched.values() for record in records]:
                yield events

    async def acknowledge(self) -> None:
        """Commit the positions of everything fetched: called only when all of it is applied."""
        await self._consumer.commit()

    def _event(self, record: ConsumerRecord) -> Event:
        headers = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
        return Event.from_headers(record.topic.removeprefix(self._prefix), headers, record.value or b"")
