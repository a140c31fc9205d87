"""A real broker, where there is a Java to run it."""

import os

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from mesh.errors import StackError
from mesh.stack.servers import kafka
from mesh.stack.servers.kafka import Kafka

pytestmark = pytest.mark.kafka
needs_kafka = pytest.mark.skipif(kafka.missing() is not None, reason=f"NOT TESTED on Kafka: {kafka.missing()}")


@needs_kafka
async def test_an_acknowledged_event_is_there_after_a_restart(tmp_path, ports):
    broker = Kafka(tmp_path, port=ports.kafka, controller_port=ports.kafka_controller)
    async with broker, AIOKafkaProducer(bootstrap_servers=broker.bootstrap, acks="all") as producer:
        await producer.send_and_wait("shop.order.v1.Order", b"placed", key=b"order")
    async with broker:
        settings = {"bootstrap_servers": broker.bootstrap, "group_id": "reader", "auto_offset_reset": "earliest"}
        async with AIOKafkaConsumer("shop.order.v1.Order", **settings) as consumer:
            assert (await consumer.getone()).value == b"placed"


@pytest.fixture
def without_java(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)


async def test_a_missing_java_is_reported_with_a_fix(without_java, tmp_path):
    with pytest.raises(StackError, match="Kafka needs Java 17, and there is no `java`") as it:
        await Kafka(tmp_path, port=1, controller_port=2).__aenter__()
    assert "--events redis" in it.value.fix


async def test_an_old_java_is_reported_and_a_new_one_is_not(without_java, tmp_path):
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    java.chmod(0o755)
    assert kafka.missing() == f"Kafka needs Java 17 or newer, and `{java}` is 11"
    assert os.access(java, os.X_OK)
