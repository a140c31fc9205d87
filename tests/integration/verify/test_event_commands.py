"""What `shopmesh outbox` and `shopmesh dlq` read and request, on the tables of a service."""

import uuid
from datetime import timedelta

import asyncpg
import pytest

from mesh.cli import dlq, outbox
from shop.order.v1 import order_events_pb2

LETTER = """
INSERT INTO dead_letter (consumer, event_id, topic, key, type, payload, attempts, error)
VALUES ('svc_toy', $1, 'shop.order.v1.Order', 'o-1', 'shop.order.v1.OrderShipped', $2, 3, 'ValueError: x')"""
EVENT = "INSERT INTO outbox (topic, key, type, payload, publish_time) VALUES ('t', $1, 't', '', now() - $2::interval)"


@pytest.fixture
async def database_url(fresh_database):
    async with fresh_database("chassis") as url:
        yield url


@pytest.fixture
async def connection(database_url):
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def test_dead_letters_are_listed_shown_and_redriven_by_request(database_url, connection):
    databases, event_id = {"svc_toy": database_url}, uuid.uuid4()
    payload = order_events_pb2.OrderShipped(order_id="o-1").SerializeToString()
    await connection.execute(LETTER, event_id, payload)
    (row,) = await dlq._read(databases, dlq._LIST)
    assert (row["service"], row["event_id"], row["attempts"]) == ("svc_toy", str(event_id), 3)
    (shown,) = await dlq._read(databases, dlq._SHOW, event_id)
    assert dlq._decoded(shown["type"], shown["payload"]) == {"order_id": "o-1"}
    assert dlq._decoded("no.Such", b"abc") == "3 bytes"
    assert await dlq._redrive(databases, str(uuid.uuid4())) == 0
    assert await dlq._redrive(databases, str(event_id)) == 1
    assert await connection.fetchval("SELECT redrive_request_time IS NOT NULL FROM dead_letter")
    await connection.execute("UPDATE dead_letter SET redrive_time = now()")
    assert await dlq._redrive(databases, None) == 0
    assert await dlq._read(databases, dlq._LIST) == []


async def test_the_lag_counts_events_that_are_unpublished_or_not_acknowledged(database_url, connection):
    await connection.execute(
        """INSERT INTO relay (holder, lease_expire_time, acknowledge_time)
           VALUES ('leader', 'infinity', now() - interval '1 hour')"""
    )
    for key, age in (("acknowledged", timedelta(hours=2)), ("published", timedelta(minutes=5)), ("new", None)):
        await connection.execute(EVENT, key, age)
    lag = (await outbox._read({"svc_toy": database_url}))["svc_toy"]
    assert (lag["unpublished"], lag["unacknowledged"], lag["leader"]) == (1, 1, "leader")
    assert 0 <= lag["oldest_seconds"] < 60
    assert await outbox._publish_again(database_url, timedelta(minutes=30)) == 1
    assert (await outbox._read({"svc_toy": database_url}))["svc_toy"]["unpublished"] == 2
