"""The settings of the event bus, the caches and the stored events, which every service has."""

import ssl
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSettings:
    """Part of `chassis.settings.Settings`."""

    #: The event bus.
    events: Literal["redis", "kafka"] = "redis"
    #: Redis for the event bus, with `events=redis`, as an account that publishes; one that loses its events gets them
    #: again from the outboxes.
    redis_url: str = ""
    #: The same Redis as an account that only consumes; `redis_url` when empty.
    redis_consumer_url: str = ""
    #: Redis for caches, which may evict anything; the event bus's when empty.
    cache_url: str = ""
    #: `host:port` of a Kafka broker, for `events=kafka`.
    kafka_bootstrap: str = ""
    #: How Kafka is reached: with TLS for SSL and SASL_SSL, with an account for the SASL ones.
    kafka_security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    #: A file of certificates that Kafka's is verified by; the system's when empty.
    kafka_ca_file: str = ""
    #: How the account is proved.
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    #: The service's account at Kafka.
    kafka_username: str = ""
    #: The account's password.
    kafka_password: str = field(default="", repr=False)
    #: Put before the names of topics and consumer groups, so that several meshes can share one broker.
    event_prefix: str = ""
    #: Seconds for which an event that its handler fails to apply is tried again before it is dead-lettered.
    event_retry_seconds: float = 10.0
    #: Days for which a published event is stored: as long as a bus that lost its events can get them again.
    outbox_retention_days: float = 7.0
    #: Days for which a consumer remembers an event, longer than the outbox and the bus store it.
    inbox_retention_days: float = 30.0
    #: Days for which a webhook is remembered, longer than its sender repeats it.
    webhook_retention_days: float = 30.0
    #: Days for which a dead letter is stored after it was redriven; one that was not stays.
    dead_letter_retention_days: float = 90.0

    def kafka_connection(self) -> dict[str, Any]:
        """Return the options of every Kafka client. Raises OSError or ssl.SSLError for an unusable `kafka_ca_file`."""
        options: dict[str, Any] = {"bootstrap_servers": self.kafka_bootstrap, "security_protocol": self.kafka_security}
        if self.kafka_security in ("SSL", "SASL_SSL"):
            options["ssl_context"] = ssl.create_default_context(cafile=self.kafka_ca_file or None)
        if self.kafka_security.startswith("SASL"):
            options |= {
                "sasl_mechanism": self.kafka_sasl_mechanism,
                "sasl_plain_username": self.kafka_username,
                "sasl_plain_password": self.kafka_password,
            }
        return options
