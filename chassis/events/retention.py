"""How long the rows of the chassis's own tables are stored."""

from collections.abc import Iterator
from datetime import timedelta

from chassis.postgres import idempotency
from chassis.settings import Settings, SettingsError


def retention(settings: Settings) -> Iterator[tuple[str, str, timedelta]]:
    """Yield each table, the column with the time that counts, and for how long its rows are stored.

    Raises SettingsError when the inbox would forget events that the outbox may still publish again.
    """
    if settings.inbox_retention_days <= settings.outbox_retention_days:
        raise SettingsError("INBOX_RETENTION_DAYS must be more than OUTBOX_RETENTION_DAYS")
    yield "outbox", "publish_time", timedelta(days=settings.outbox_retention_days)
    yield "inbox", "apply_time", timedelta(days=settings.inbox_retention_days)
    yield "dead_letter", "redrive_time", timedelta(days=settings.dead_letter_retention_days)
    yield "webhook", "receive_time", timedelta(days=settings.webhook_retention_days)
    yield "idempotency", "create_time", idempotency.RETENTION
