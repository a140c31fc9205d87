"""The Kafka bus without a broker: how its producer is configured."""

import ssl

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

from chassis.event_settings import EventSettings
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


async def test_a_slow_consumer_keeps_its_partitions(monkeypatch):
    """Or the batch of an event that waits for a lock would be delivered again and again."""
    made = []

    class Recorded(AIOKafkaConsumer):
        def __init__(self, *topics, **options):
            super().__init__(*topics, **options)
            made.append(options)

    monkeypatch.setattr(kafka_bus, "AIOKafkaConsumer", Recorded)
    bus = kafka_bus.KafkaBus(EventSettings(kafka_bootstrap="127.0.0.1:1"))
    with pytest.raises(KafkaError):
        await bus.subscribe("g", ["t"]).__aenter__()
    assert made[0]["max_poll_interval_ms"] >= 3_600_000


def test_kafka_is_reached_with_tls_and_an_account_when_the_settings_say_so():
    settings = EventSettings(
        kafka_bootstrap="broker:9093", kafka_security="SASL_SSL", kafka_username="svc_toy", kafka_password="canary"
    )
    options = settings.kafka_connection()
    assert options.pop("ssl_context").verify_mode == ssl.CERT_REQUIRED
    assert options == {
        "bootstrap_servers": "broker:9093",
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "svc_toy",
        "sasl_plain_password": "canary",
    }
    assert "canary" not in repr(settings)
    assert EventSettings(kafka_bootstrap="b:1").kafka_connection() == {
        "bootstrap_servers": "b:1",
        "security_protocol": "PLAINTEXT",
    }
