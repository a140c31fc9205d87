"""The settings of the event bus, the caches and the stored events, which every service has."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSettings:
    """Part of `chassis.settings.Settings`."""

    #: The event bus.
    events: Literal["redis", "kafka"] = "redis"
    #: Redis for the event bus, with `events=redis`; one that loses its events gets them again from the outboxes.
    redis_url: str = ""
    #: Redis for caches, which may evict anything; the event bus's when empty.
    cache_url: str = ""
    #: `host:port` of a Kafka broker, for `events=kafka`.
    kafka_bootstrap: str = ""
    #: Put before the names of topics and consumer groups, so that several meshes can share one broker.
    event_prefix: str = ""
    #: Seconds for which an event that its handler fails to apply is tried again before it is dead-lettered.
    event_retry_seconds: float = 10.0
    #: Days for which a published event is stored: as long as a bus that lost its events can get them again.
    outbox_retention_days: float = 7.0
    #: Days for which a consumer remembers an event, longer than the outbox and the bus store it.
    inbox_retention_days: float = 30.0
    #: Days for which a dead letter is stored after it was redriven; one that was not stays.
    dead_letter_retention_days: float = 90.0
