"""The embedded event bus: Redis Streams, one stream for a topic, for machines without Kafka.

Order per key: one consumer of a group holds the group's lease and reads alone; the others wait to take over.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import redis.asyncio as redis
from redis.exceptions import OutOfMemoryError, RedisError, ResponseError

from chassis.cancellation import cancel_and_wait
from chassis.events.bus import NO_POSITIONS, Event, EventsLost, Positions
from chassis.metrics import EVENTS_LOST

log = logging.getLogger(__name__)

_BATCH = 200
_BLOCK_MS = 3_000
_LEASE_MS = 5_000
#: A stream that is longer than this is trimmed to what a group has not acknowledged.
_MAX_STREAM_LENGTH = 1_000_000
#: Share of Redis's memory that events may fill; the rest is for leases and caches.
_MAX_MEMORY_SHARE = 0.9

#: Acquires the lease when no consumer holds it, and renews its own. Like the release, it uses commands that fail on
#: streams alone, so that an account which may use them cannot overwrite or delete a stream that it consumes.
_ACQUIRE = """
redis.call('setnx', KEYS[1], ARGV[1])
if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('getex', KEYS[1], 'PX', ARGV[2])
return 1"""
#: Reads for the group while this consumer holds the lease. The script itself checks that: a process that is paused
#: between a check and the read would receive events that the next leader never finds pending.
_READ = """
if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
local streams = {unpack(KEYS, 2)}
for position = 4, #ARGV do table.insert(streams, ARGV[position]) end
return redis.call('xreadgroup', 'GROUP', ARGV[2], 'leader', 'COUNT', ARGV[3], 'STREAMS', unpack(streams))"""
_RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then redis.call('getdel', KEYS[1]) end"

_Id = tuple[int, ...]


class RedisBus:
    """An event bus on one Redis server."""

    def __init__(self, client: redis.Redis, consumer: redis.Redis, prefix: str = "") -> None:
        """Publish by `client` and consume by `consumer`, which do not decode replies; `prefix` separates meshes."""
        self._client = client
        self._consumer = consumer
        # A hash tag: a Redis Cluster keeps all keys with the same one together, as scripts and transactions demand.
        self._prefix = f"{{{prefix}bus}}:"
        #: The topics that this publisher may trim.
        self._published: set[str] = set()
        #: What the groups of each topic needed when it was last looked at.
        self._last_needed: dict[str, list[tuple[_Id, bool]]] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, prefix: str = "", consumer_url: str = "") -> AsyncIterator["RedisBus"]:
        """Connect, and close at the end; `consumer_url` is the server's with an account that only consumes."""
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(redis.from_url(one, socket_timeout=_BLOCK_MS / 1000 + 5, protocol=2))
                for one in (url, consumer_url or url)
            ]
            yield cls(clients[0], clients[1], prefix)

    async def publish(self, events: Sequence[Event], positions: Positions = NO_POSITIONS) -> Positions:
        """Append all events in order; Redis runs with `appendfsync always`, so that they are durable on return.

        When its memory is full, only events that every group has acknowledged are deleted; raises OutOfMemoryError, and
        the events wait in the outbox, when that is not enough.
        """
        topics = list(dict.fromkeys(event.topic for event in events))
        if await self._is_full():
            for topic in self._published:
                await self._trim(topic)
            if await self._is_full():
                raise OutOfMemoryError("events that are not acknowledged fill the memory")
        async with self._client.pipeline(transaction=True) as pipeline:
            for topic in topics:
                pipeline.xinfo_stream(self._prefix + topic)
            for event in events:
                fields: dict[Any, Any] = {**event.headers(), "payload": event.payload}
                pipeline.xadd(self._prefix + event.topic, fields)
            replies = await pipeline.execute(raise_on_error=False)
        for topic, stream in zip(topics, replies, strict=False):
            # The events are on the bus now, and will be once more, after what it has lost.
            _require_position(topic, stream, positions)
        self._published.update(topics)
        added = replies[len(topics) :]
        for reply in added:
            if isinstance(reply, Exception):
                raise reply
        return {**positions, **{event.topic: entry.decode() for event, entry in zip(events, added, strict=True)}}

    async def maintain(self, positions: Positions) -> bool:
        """See chassis.events.bus.Bus; when memory is short, or a stream long, only what a group needs is left."""
        if not positions:
            return True
        async with self._client.pipeline(transaction=True) as pipeline:
            for topic in positions:
                pipeline.xinfo_stream(self._prefix + topic)
            replies = await pipeline.execute(raise_on_error=False)
        self._published.update(positions)
        is_full = await self._is_full()
        acknowledged = True
        for (topic, position), stream in zip(positions.items(), replies, strict=True):
            _require_position(topic, stream, positions)
            needed = await self._needed(topic)
            self._require_entries(topic, stream, needed)
            acknowledged &= all(one >= (_parsed(position), True) for one in needed)
            if is_full or stream["length"] > _MAX_STREAM_LENGTH:
                await self._trim(topic)
        return acknowledged

    async def _is_full(self) -> bool:
        memory = await self._client.info("memory")
        return bool(0 < memory["maxmemory"] * _MAX_MEMORY_SHARE < memory["used_memory"])

    async def _trim(self, topic: str) -> None:
        """Delete the events that every group has acknowledged."""
        stream = self._prefix + topic
        self._last_needed[topic] = needed = await self._needed(topic)
        if needed:
            await self._client.xtrim(stream, minid="{}-{}".format(*min(needed)[0]), approximate=False)
        else:  # a topic without consumer groups: the older half
            await self._client.xtrim(stream, maxlen=await self._client.xlen(stream) // 2, approximate=False)

    async def _needed(self, topic: str) -> list[tuple[_Id, bool]]:
        """Return for each group its oldest pending event and False, or else the last that it acknowledged and True."""
        needed = []
        for group in await self._client.xinfo_groups(self._prefix + topic):
            pending = None
            if group["pending"]:
                pending = (await self._client.xpending(self._prefix + topic, group["name"]))["min"]
            needed.append((_parsed(pending or group["last-delivered-id"]), pending is None))
        return needed

    def _require_entries(self, topic: str, stream: dict[str, Any], needed: list[tuple[_Id, bool]]) -> None:
        """Raise EventsLost, once, when the stream was trimmed from outside: the bus leaves what a group needs first."""
        first, last = stream["first-entry"], _parsed(stream["last-generated-id"])
        before, self._last_needed[topic] = self._last_needed.get(topic, needed), needed
        for entry, _ in before:
            is_there = entry == last or (first is not None and _parsed(first[0]) <= entry)
            # A group that has read nothing is new: it may have missed what was trimmed before.
            if entry > (0, 0) and not is_there:
                raise EventsLost(f"{topic} was trimmed")

    @asynccontextmanager
    async def subscribe(self, group: str, topics: Sequence[str]) -> AsyncIterator["_Subscription"]:
        """Join the group; see chassis.events.bus.Bus."""
        streams = [self._prefix + topic for topic in topics]
        for stream in streams:
            try:
                await self._consumer.xgroup_create(stream, group, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise
        subscription = _Subscription(self._consumer, self._prefix, group, streams)
        renewal = asyncio.create_task(subscription.keep_lease())
        try:
            yield subscription
        finally:
            try:
                await cancel_and_wait(renewal)  # a renewal that went on would keep the lease from every other consumer
            finally:
                await subscription.leave()


class _Subscription:
    def __init__(self, client: redis.Redis, prefix: str, group: str, streams: Sequence[str]) -> None:
        self._client = client
        self._prefix = prefix
        self._group = group
        self._streams = streams
        # One for the whole group: an older version of a service, with other topics, must not read beside a newer one.
        self._lease = f"{prefix}lease:{group}"
        self._token = secrets.token_hex(8)
        self._leads = asyncio.Event()
        self._leads_until = 0.0
        self._unacknowledged: dict[str, list[bytes]] = {}

    async def keep_lease(self) -> None:
        """Acquire the group's lease and renew it for as long as this subscription exists."""
        while True:
            requested = time.monotonic()
            try:
                held = await self._client.eval(_ACQUIRE, 1, self._lease, self._token, str(_LEASE_MS))
            except RedisError:
                held = False  # without a renewal another consumer may already hold the lease
            self._leads_until = requested + _LEASE_MS / 1_000
            (self._leads.set if held else self._leads.clear)()
            await asyncio.sleep(_LEASE_MS / 5_000)

    def _still_leads(self) -> bool:
        """Return whether this consumer certainly holds the lease; after a pause of the process another may hold it."""
        if time.monotonic() >= self._leads_until:
            self._leads.clear()
        return self._leads.is_set()

    async def leave(self) -> None:
        """Release the lease for the next consumer."""
        await self._client.eval(_RELEASE, 1, self._lease, self._token)

    async def __aiter__(self) -> AsyncIterator[Sequence[Event]]:
        """Yield first the events that an earlier leader did not acknowledge, then new ones."""
        while True:
            await self._leads.wait()
            position = "0"  # the pending entries; every leader reads as the same consumer, so they are ours now
            while self._still_leads():
                events = await self._read(position)
                if not self._still_leads():
                    self._unacknowledged.clear()  # the next leader finds them pending
                elif self._unacknowledged:
                    yield events
                elif position == "0":
                    position = ">"
                else:
                    await self._wait()

    async def acknowledge(self) -> None:
        """See chassis.events.bus.Subscription."""
        delivered, self._unacknowledged = self._unacknowledged, {}
        for stream, ids in delivered.items():
            await self._client.xack(stream, self._group, *ids)

    async def _read(self, position: str) -> list[Event]:
        keys = (self._lease, *self._streams)
        words = (self._token, self._group, str(_BATCH), *[position] * len(self._streams))
        reply: Any = await self._client.eval(_READ, len(keys), *keys, *words)
        if reply == 0:
            self._leads.clear()
        events = []
        for stream, entries in reply or ():
            for entry, fields in entries:
                self._unacknowledged.setdefault(stream.decode(), []).append(entry)
                if fields:
                    pairs = dict(zip(fields[::2], fields[1::2], strict=True))
                    events.append(self._event(stream.decode(), pairs))
                else:
                    EVENTS_LOST.inc()
                    log.error("an event was deleted before it was applied", extra={"entry": f"{stream!r} {entry!r}"})
        return events

    async def _wait(self) -> None:
        """Wait until there is an event that the group has not read, at most one block interval."""
        async with self._client.pipeline(transaction=False) as pipeline:
            for stream in self._streams:
                pipeline.xinfo_groups(stream)
            known = await pipeline.execute()
        read: dict[Any, Any] = {
            stream: group["last-delivered-id"]
            for stream, groups in zip(self._streams, known, strict=True)
            for group in groups
            if group["name"] == self._group.encode()
        }
        await self._client.xread(read, count=1, block=_BLOCK_MS)

    def _event(self, stream: str, fields: dict[bytes, bytes]) -> Event:
        payload = fields.pop(b"payload", b"")
        headers = {name.decode(errors="replace"): value.decode(errors="replace") for name, value in fields.items()}
        return Event.from_headers(stream.removeprefix(self._prefix), headers, payload)


def _parsed(entry: bytes | str) -> _Id:
    return tuple(map(int, (entry.decode() if isinstance(entry, bytes) else entry).split("-")))


def _require_position(topic: str, stream: Any, positions: Positions) -> None:
    """Raise EventsLost when the stream, as XINFO shows it, ends before the position."""
    if topic in positions and (
        isinstance(stream, ResponseError) or _parsed(stream["last-generated-id"]) < _parsed(positions[topic])
    ):
        raise EventsLost(f"{topic} ends before {positions[topic]}")
