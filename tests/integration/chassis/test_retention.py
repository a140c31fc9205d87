"""Retention: rows are purged after their time, and none before, in every service that has a database."""

from datetime import timedelta
from pathlib import Path

import pytest

from chassis import Settings
from chassis.events.retention import retention
from chassis.postgres import idempotency
from chassis.settings import SettingsError
from chassis.testing import eventually

#: How each row is inserted, by its name and its age; and the age at which it is purged.
RETENTION = {
    "outbox": (
        "INSERT INTO outbox (topic, key, type, payload, publish_time) VALUES ('t', $1, 't', '', now() - $2::interval)",
        "SELECT key FROM outbox",
        timedelta(days=7),
    ),
    "inbox": (
        "INSERT INTO inbox (consumer, event_id, apply_time) VALUES ($1, gen_random_uuid(), now() - $2::interval)",
        "SELECT consumer FROM inbox",
        timedelta(days=30),
    ),
    "idempotency": (
        """INSERT INTO idempotency (principal, method, key, request_hash, create_time)
           VALUES ('u', 'm', $1, '', now() - $2::interval)""",
        "SELECT key FROM idempotency",
        timedelta(hours=48),
    ),
    "webhook": (
        """INSERT INTO webhook (sender, webhook_id, type, receive_time) VALUES ('s', $1, 't', now() - $2::interval)""",
        "SELECT webhook_id FROM webhook",
        timedelta(days=30),
    ),
    "dead_letter": (
        """INSERT INTO dead_letter (consumer, event_id, topic, key, type, payload, attempts, error, redrive_time)
           VALUES ('c', gen_random_uuid(), 't', $1, 't', '', 1, 'e', now() - $2::interval)""",
        "SELECT key FROM dead_letter",
        timedelta(days=90),
    ),
}


def test_the_inbox_must_remember_events_for_longer_than_the_outbox_stores_them():
    settings = Settings(outbox_retention_days=2, inbox_retention_days=3, webhook_retention_days=4)
    kept = {table: age for table, _, age in retention(settings)}
    assert (kept["outbox"], kept["inbox"], kept["webhook"]) == tuple(timedelta(days=days) for days in (2, 3, 4))
    with pytest.raises(SettingsError, match="INBOX_RETENTION_DAYS"):
        list(retention(Settings(outbox_retention_days=3, inbox_retention_days=3)))


@pytest.fixture
def settings(database_url, redis_url, event_prefix):
    return Settings(database_url=database_url, redis_url=redis_url, event_prefix=event_prefix)


@pytest.mark.parametrize("table", RETENTION)
async def test_a_service_purges_old_rows_and_retains_recent_ones(serve, settings, database, table):
    insert, left, kept = RETENTION[table]
    for name, age in (("old", kept + timedelta(hours=1)), ("young", kept - timedelta(hours=1))):
        await database.pool.execute(insert, name, age)

    async def compose(app):
        await app.database()

    async def only_the_young_one():
        return [row[0] for row in await database.pool.fetch(left)] == ["young"]

    async with serve(settings=settings, compose=compose):
        await eventually(only_the_young_one)


async def test_an_unpublished_event_is_never_purged(database):
    await database.pool.execute(
        """INSERT INTO outbox (topic, key, type, payload, create_time)
           VALUES ('t', 'k', 't', '', now() - interval '1 year')"""
    )
    await database.purge_older_than("outbox", "publish_time", timedelta(0))
    assert await database.pool.fetchval("SELECT count(*) FROM outbox") == 1


async def test_a_purge_is_batched_and_returns_whether_there_is_more(database, monkeypatch):
    """Or the purge of a large table could exceed the statement timeout."""
    monkeypatch.setattr("chassis.postgres.database._PURGE_BATCH", 10)
    await database.pool.execute(
        """INSERT INTO inbox (consumer, event_id, apply_time)
           SELECT 'c', gen_random_uuid(), now() - interval '1 day' FROM generate_series(1, 25)"""
    )
    more = [await database.purge_older_than("inbox", "apply_time", timedelta(hours=1)) for _ in range(3)]
    assert more == [True, True, False]
    assert await database.pool.fetchval("SELECT count(*) FROM inbox") == 0


def test_the_documented_retention_of_replies_is_the_real_one(repository: Path):
    told = f"{idempotency.RETENTION // timedelta(hours=1)} hours"
    for page in ("docs/clients.md", "docs/edge.md"):
        assert told in (repository / page).read_text(), page
