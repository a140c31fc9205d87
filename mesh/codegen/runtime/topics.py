"""Where every event goes."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class EventType:
    """The topic of an event, and the name of the string field whose value keeps events in order."""

    topic: str
    key: str


# By the full name of the message.
EVENTS: Final[dict[str, EventType]] = {}  # filled by mesh.codegen
