"""The transactional outbox: an event is a row of the change's own transaction, and a relay publishes it afterwards.

Nothing is published that did not commit, and nothing that committed is lost; it may be published twice, and the
consumer's inbox drops the duplicate.
"""

from collections.abc import Mapping

from google.protobuf.message import Message

from chassis.postgres.database import Transaction
from chassis.telemetry import inject
from shop.topics import EVENTS

_INSERT = """
INSERT INTO outbox (topic, key, type, payload, traceparent)
SELECT topic, key, type, payload, traceparent FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::text[])
    WITH ORDINALITY AS event (topic, key, type, payload, traceparent, position) ORDER BY position"""

#: Half of Kafka's default limit of a message (1 MiB, `message.max.bytes` and the producer's `max_request_size`), and
#: far below Redis's: an event that the bus rejects would block all others.
LARGEST_BYTES = 512 * 1024
#: In characters; the notification of a key holds 8,000 bytes.
LONGEST_KEY = 1_000


async def add(tx: Transaction, *events: Message, traces: Mapping[str, str] | None = None) -> None:
    """Add `events` to the transaction: they are published, in this order, if it commits.

    They belong to the trace of the current call, or to those that `traces` names by key.
    Raises ValueError for one that is too large to be published, so that its change fails as well.
    """
    if not events:
        return
    own = inject().get("traceparent", "")
    kinds = [EVENTS[event.DESCRIPTOR.full_name] for event in events]
    keys = [getattr(event, kind.key) for kind, event in zip(kinds, events, strict=True)]
    payloads = [event.SerializeToString() for event in events]
    if max(map(len, payloads)) > LARGEST_BYTES or max(map(len, keys)) > LONGEST_KEY:
        raise ValueError(f"an event is larger than {LARGEST_BYTES} bytes or its key than {LONGEST_KEY} characters")
    tx.write(
        _INSERT,
        *(
            (kind.topic, key, event.DESCRIPTOR.full_name, payload, (traces or {}).get(key, own))
            for kind, key, event, payload in zip(kinds, keys, events, payloads, strict=True)
        ),
    )
