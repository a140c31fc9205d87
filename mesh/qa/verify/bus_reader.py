"""Reads the events that are stored on the event bus of a stack, without consuming them."""

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import redis.asyncio as redis

from chassis.events.bus import owner_of
from mesh.errors import StackError
from shop.topics import TOPICS

#: `expected` is 1 for events that were published before the databases were read, and whose outbox row is not purged.
COLUMNS = ("event_id", "topic", "key", "expected")
_PREFIX = b"{bus}:"
_FIELDS = (b"ce_id", b"ce_subject", b"ce_time")
_PAGE = 1_000
#: Outbox rows are stored for longer.
_STORED = timedelta(days=6)

Ends = Mapping[bytes, bytes]


class RedisReader:
    """The streams of the Redis bus. Its methods raise StackError when Redis does not answer."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def ends(self) -> Ends:
        """Return the id of the last entry of each stream."""
        async with self._connect() as client:
            return await _ends(client)

    async def pages(self, services: Collection[str], before: Ends) -> AsyncIterator[list[tuple[Any, ...]]]:
        """Yield the events that these services own, in pages of rows; `before` is what `ends` returned earlier."""
        async with self._connect() as client:
            for stream, last in (await _ends(client)).items():
                topic = stream.removeprefix(_PREFIX).decode()
                if owner_of(topic) not in services:
                    continue
                earlier, start = _number(before.get(stream, b"0-0")), b"-"
                while page := await _page(client, stream, start, last):
                    yield [_row(topic, fields, _number(entry) <= earlier) for entry, fields in page]
                    start = b"(" + page[-1][0]

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[redis.Redis]:
        try:
            async with redis.from_url(self._url, protocol=2) as client:
                yield client
        except redis.RedisError as error:
            raise StackError(f"the event bus cannot be read: {error}", fix="see `shopmesh status`") from error


async def _ends(client: redis.Redis) -> Ends:
    ends = {}
    for stream in (_PREFIX + topic.encode() for topic in TOPICS):
        try:
            ends[stream] = (await client.xinfo_stream(stream))["last-generated-id"]
        except redis.ResponseError as error:
            if "no such key" not in str(error):  # no event of this topic was ever published
                raise
    return ends


async def _page(
    client: redis.Redis, stream: bytes, start: bytes, last: bytes
) -> list[tuple[bytes, dict[bytes, bytes]]]:
    page: Any = await client.xrange(stream, start, last, _PAGE)
    return page or []


def _number(entry: bytes) -> tuple[int, ...]:
    return tuple(map(int, entry.split(b"-")))


def _row(topic: str, fields: Mapping[bytes, bytes], is_earlier: bool) -> tuple[Any, ...]:  # noqa: FBT001  one of a row
    event_id, key, time = (fields.get(name, b"").decode(errors="replace") for name in _FIELDS)
    return event_id, topic, key, is_earlier and _is_stored(time)


def _is_stored(time: str) -> bool:
    try:
        return datetime.fromisoformat(time) > datetime.now(UTC) - _STORED
    except (TypeError, ValueError):
        return True  # no event of a relay
