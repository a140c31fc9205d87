"""The interface of an event bus: it delivers events to each consumer group, in order per key, at least once.

`redis_bus` and `kafka_bus` beside this module are the two; tests/integration/chassis/test_bus.py is their contract.
"""

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from shop.services import SERVICES

#: The workload of each package of the contract.
_WORKLOADS = {service.name.rpartition(".")[0]: service.workload for service in SERVICES.values()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event as CloudEvents in binary mode: attributes beside a protobuf payload."""

    #: Unique; consumers drop duplicates.
    id: str
    #: Full name of the payload's message type.
    type: str
    #: One for each aggregate type, `shop.order.v1.Order`.
    topic: str
    #: The aggregate's id; events with the same key stay in order.
    key: str
    #: The service that published it.
    source: str
    #: RFC 3339, UTC.
    time: str
    payload: bytes
    traceparent: str = ""

    def headers(self) -> dict[str, str]:
        """Return the CloudEvents attributes, named as its Kafka binding names them."""
        return {
            "ce_specversion": "1.0",
            "ce_id": self.id,
            "ce_type": self.type,
            "ce_source": self.source,
            "ce_subject": self.key,
            "ce_time": self.time,
            "ce_traceparent": self.traceparent,
            "content-type": "application/protobuf",
        }

    @classmethod
    def from_headers(cls, topic: str, headers: dict[str, str], payload: bytes) -> "Event":
        """Rebuild an event. One without CloudEvents attributes gets an empty `type` and a stable id."""
        # PostgreSQL, where every event is stored, has no NUL in text.
        headers = {name: value.replace("\0", "\ufffd") for name, value in headers.items()}
        try:
            event_id = str(uuid.UUID(headers.get("ce_id", "")))
        except ValueError:
            event_id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{topic} {sorted(headers.items())} {payload.hex()}"))
        return cls(
            id=event_id,
            type=headers.get("ce_type", ""),
            topic=topic,
            key=headers.get("ce_subject", ""),
            source=headers.get("ce_source", ""),
            time=headers.get("ce_time", ""),
            payload=payload,
            traceparent=headers.get("ce_traceparent", ""),
        )


#: Where on the bus the last events of a publisher are, by stream or partition, in the bus's own terms.
Positions = Mapping[str, str]
NO_POSITIONS: Positions = MappingProxyType({})


class EventsLost(Exception):
    """The bus no longer has events that it accepted: it came back empty, or older, or was trimmed from outside."""


class Subscription(Protocol):
    """One consumer of a group. Iterate, apply, acknowledge."""

    def __aiter__(self) -> AsyncIterator[Sequence[Event]]:
        """Yield batches; unacknowledged events are delivered again to a later subscriber of the group."""
        ...

    async def acknowledge(self) -> None:
        """Acknowledge all events yielded so far: they are applied and durable."""
        ...


class Bus(Protocol):
    """An open event bus."""

    async def publish(self, events: Sequence[Event], positions: Positions = NO_POSITIONS) -> Positions:
        """Return once all events are durable on the bus, with `positions` brought up to date.

        `positions` are those of the publisher's last events: raises EventsLost when the bus has not even reached them.
        After an error the caller may publish all events again.
        """
        ...

    async def maintain(self, positions: Positions) -> bool:
        """Return whether every group has acknowledged the publisher's events up to `positions`; free what none needs.

        Raises EventsLost when events up to `positions` are gone that a group has not acknowledged.
        """
        ...

    def subscribe(self, group: str, topics: Sequence[str]) -> AbstractAsyncContextManager[Subscription]:
        """Join a consumer group; a new group starts at the oldest event."""
        ...


def owner_of(topic: str) -> str:
    """Return the workload that owns a topic, the only one that publishes there; '' of a topic outside the contract."""
    return _WORKLOADS.get(topic.rpartition(".")[0], "")
