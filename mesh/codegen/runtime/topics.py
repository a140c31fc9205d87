"""The topic and the ordering key of every event."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class EventType:
    """The topic of an event, and the name of the string field by whose value its events are ordered."""

    topic: str
    key: str


# By the full name of the message.
EVENTS: Final[dict[str, EventType]] = {}  # filled by mesh.codegen
