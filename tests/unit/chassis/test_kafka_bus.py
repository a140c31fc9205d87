"""The Kafka bus without a broker: how its producer is configured."""

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from chassis.events import kafka_bus


async def test_the_kafka_producer_is_idempotent_and_waits_for_all_in_sync_replicas(monkeypatch):
    """One broker acknowledges the same with other settings, and loses events only when one of several fails."""
    made = []

    class Recorded(AIOKafkaProducer):
        def __init__(self, **options):
            super().__init__(**options)
            made.append(options)

    monkeypatch.setattr(kafka_bus, "AIOKafkaProducer", Recorded)
    async with kafka_bus.KafkaBus.open("127.0.0.1:1") as bus:
        with pytest.raises(KafkaError):
            await bus._start_producer()
    (options,) = made
    assert (options["acks"], options["enable_idempotence"]) == ("all", True)
