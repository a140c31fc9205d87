"""Every topic with its consumers, and the topic and the ordering key of every event."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic: the services that consume it, and in Kafka its partitions and how long an event is stored."""

    name: str
    consumers: tuple[str, ...]
    partitions: int
    retention_seconds: float


@dataclass(frozen=True, slots=True)
class EventType:
    """The topic of an event, and the name of the string field by whose value its events are ordered."""

    topic: str
    key: str


# By name.
TOPICS: Final[dict[str, Topic]] = {}  # filled by mesh.codegen

# By the full name of the message.
EVENTS: Final[dict[str, EventType]] = {}  # filled by mesh.codegen
