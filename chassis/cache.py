"""A cache of whole messages in Redis, for frequent reads. Its loss costs time, never correctness.

Each process also keeps the entries that it has read. It returns one after a read of Redis that says that the entry's
group was not invalidated since. Readers that come while such a read is in flight share the next one.
"""

import asyncio
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Any, TypeVar

import redis.asyncio as redis
from google.protobuf.message import DecodeError, Message
from redis.exceptions import RedisError

from chassis.cancellation import cancel_and_wait
from chassis.postgres.lane import Batch, Lane

log = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)

_TIMEOUT_SECONDS = 0.2
#: Entries of one group, at most: clients can request arbitrarily many different pages.
_LARGEST_GROUP = 1_000
#: Bytes of the entries that a process keeps, at most.
_KEPT_BYTES = 16_000_000
#: How long the epoch of a group is remembered; far longer than any read takes.
_EPOCH_SECONDS = 3_600

#: Returns an entry, the epoch of its group and the milliseconds that the group has left. A group without an epoch gets
#: a new one, which no entry has that was read before.
_FETCH = """
local epoch = redis.call('get', KEYS[2])
if not epoch then
    epoch = ARGV[2]
    redis.call('set', KEYS[2], epoch, 'EX', ARGV[3])
end
return {redis.call('hget', KEYS[1], ARGV[1]), epoch, redis.call('pttl', KEYS[1])}"""
#: Drops a group and what its readers are loading, in one step: between two, a reader would keep an old entry for as
#: long as the new epoch lasts.
_INVALIDATE = """
redis.call('set', KEYS[2], ARGV[1], 'EX', ARGV[2])
redis.call('del', KEYS[1])"""
#: Stores an entry unless its group was invalidated after the entry's reader began to read. A full group loses a random
#: entry: the frequent ones come back. Returns the milliseconds that the group has left, 0 if it does not store.
_STORE = """
if redis.call('get', KEYS[2]) ~= ARGV[1] then return 0 end
if redis.call('hlen', KEYS[1]) >= tonumber(ARGV[4]) and redis.call('hexists', KEYS[1], ARGV[2]) == 0 then
    redis.call('hdel', KEYS[1], redis.call('hrandfield', KEYS[1]))
end
redis.call('hset', KEYS[1], ARGV[2], ARGV[3])
if redis.call('ttl', KEYS[1]) < 0 then redis.call('expire', KEYS[1], ARGV[5]) end
return redis.call('pttl', KEYS[1])"""


@dataclass(frozen=True, slots=True)
class _Kept:
    """An entry in the memory of this process."""

    data: bytes
    #: The epoch of the group when the entry was valid.
    epoch: bytes
    #: time.monotonic() after which it is not returned.
    expires: float


class _KeptEntries:
    """The entries that were read last, by group and entry, within a number of bytes."""

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._bytes = 0

    def get(self, key: tuple[str, str], epoch: bytes | None) -> bytes | None:
        """Return the entry if it is valid in this epoch of its group, and has not expired."""
        kept = self._entries.get(key)
        if kept is None or kept.epoch != epoch or time.monotonic() >= kept.expires:
            return None
        self._entries.move_to_end(key)
        return kept.data

    def put(self, key: tuple[str, str], kept: _Kept) -> None:
        """Keep the entry, and drop those that were not read for the longest time."""
        if before := self._entries.pop(key, None):
            self._bytes -= len(before.data)
        self._entries[key] = kept
        self._bytes += len(kept.data)
        while self._bytes > _KEPT_BYTES or len(self._entries) > _LARGEST_GROUP:
            self._bytes -= len(self._entries.popitem(last=False)[1].data)


class Cache:
    """Messages by group and entry; a group is invalidated as a whole. Without Redis each read is a miss."""

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        """Store all keys under `prefix`, the service's name."""
        self._client = client
        self._prefix = prefix
        #: The loads that are under way, by group, entry and the group's epoch.
        self._loads: dict[tuple[str, str, bytes], asyncio.Task[Any]] = {}
        self._kept = _KeptEntries()
        self._epochs: Lane[str, bytes | None] = Lane(self._read_epochs)

    @classmethod
    def connect(cls, url: str, prefix: str) -> "Cache":
        """Return a cache on the Redis at `url`, connected when first used."""
        return cls(redis.from_url(url, socket_timeout=_TIMEOUT_SECONDS, protocol=2), prefix)

    async def get_or_load(
        self, group: str, entry: str, kind: type[M], seconds: int, load: Callable[[], Awaitable[M]]
    ) -> M:
        """Return the entry, from the cache or by `load`; the group lives `seconds` from its first entry on.

        The loaded message is stored only if the group was not invalidated during the load, so that no stale entry
        outlives a change. Callers that miss the same entry at once share one load, which belongs to none of them.
        """
        try:
            data = self._kept.get((group, entry), await self._epochs.submit(group))
            if data is None:
                data, epoch = await self._fetch(group, entry)
            if data is not None:
                return kind.FromString(data)
        except (RedisError, DecodeError, OSError) as error:
            log.warning("cache unavailable", extra={"error": type(error).__name__})
            return await load()
        key = (group, entry, epoch)
        if key not in self._loads:
            # A context of its own: it must not inherit the deadline or identity of the call that happens to be first.
            task = asyncio.create_task(self._load(key, seconds, load), context=Context())
            self._loads[key] = task
            task.add_done_callback(lambda _: self._loads.pop(key, None))
        message: M = await asyncio.shield(self._loads[key])
        return message

    async def _load(self, key: tuple[str, str, bytes], seconds: int, load: Callable[[], Awaitable[M]]) -> M:
        message = await load()
        group, entry, epoch = key
        await self._store(group, entry, message, seconds, epoch)
        return message

    async def invalidate(self, *groups: str) -> None:
        """Drop groups, after a change of the rows that they were loaded from has committed."""
        try:
            # No transaction of all: groups may be on different servers of a cluster.
            async with self._client.pipeline(transaction=False) as pipeline:
                for group in groups:
                    pipeline.eval(_INVALIDATE, 2, self._group(group), self._epoch(group), _new_epoch(), _EPOCH_SECONDS)
                await pipeline.execute()
        except (RedisError, OSError) as error:
            log.warning("cache not invalidated", extra={"error": type(error).__name__})

    async def close(self) -> None:
        """End the reads and loads that are under way, which would connect again, and close the connections."""
        await self._epochs.close()
        await cancel_and_wait(*self._loads.values())
        await self._client.aclose()

    async def _read_epochs(self, groups: Batch[str]) -> Sequence[bytes | Exception | None]:
        """Return the epoch of each group, or why it could not be read."""
        wanted = list(dict.fromkeys(groups))
        try:
            if len(wanted) == 1:
                epoch: Any = await self._client.get(self._epoch(wanted[0]))
                return [epoch] * len(groups)
            async with self._client.pipeline(transaction=False) as pipeline:
                for group in wanted:
                    pipeline.get(self._epoch(group))
                epochs = dict(zip(wanted, await pipeline.execute(), strict=True))
        except (RedisError, OSError) as error:
            return [error] * len(groups)
        return [epochs[group] for group in groups]

    async def _fetch(self, group: str, entry: str) -> tuple[bytes | None, bytes]:
        """Return the entry, None when it is absent, and the epoch of its group."""
        arguments: tuple[Any, ...] = (entry, _new_epoch(), _EPOCH_SECONDS)
        data, epoch, left = await self._client.eval(_FETCH, 2, self._group(group), self._epoch(group), *arguments)
        if data is not None:
            self._keep(group, entry, data, epoch, left)
        return data, epoch

    async def _store(self, group: str, entry: str, message: Message, seconds: int, epoch: bytes) -> None:
        data = message.SerializeToString()
        arguments: tuple[Any, ...] = (epoch, entry, data, _LARGEST_GROUP, seconds)
        try:
            left = await self._client.eval(_STORE, 2, self._group(group), self._epoch(group), *arguments)
        except (RedisError, OSError) as error:
            log.warning("cache not written", extra={"error": type(error).__name__})
        else:
            self._keep(group, entry, data, epoch, left)

    def _keep(self, group: str, entry: str, data: bytes, epoch: bytes, milliseconds: int) -> None:
        self._kept.put((group, entry), _Kept(data, epoch, time.monotonic() + milliseconds / 1000))

    # Hash tags: a Redis Cluster keeps a group and its epoch together, as the script demands.

    def _group(self, group: str) -> str:
        return f"{{{self._prefix}:{group}}}"

    def _epoch(self, group: str) -> str:
        return f"{{{self._prefix}:{group}}}:epoch"


def _new_epoch() -> bytes:
    return os.urandom(8)
