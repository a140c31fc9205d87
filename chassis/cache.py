"""A cache of whole messages in Redis, for frequent reads. Its loss costs time, never correctness."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any, TypeVar

import redis.asyncio as redis
from google.protobuf.message import DecodeError, Message
from redis.exceptions import RedisError

from chassis.cancellation import cancel_and_wait

log = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)

_TIMEOUT_SECONDS = 0.2
#: Entries of one group, at most: clients can request arbitrarily many different pages.
_LARGEST_GROUP = 1_000
#: How long the invalidation of a group is remembered; far longer than any read takes.
_EPOCH_SECONDS = 3_600

#: Stores an entry unless its group was invalidated after the entry's reader began to read. A full group loses a random
#: entry: the frequent ones come back.
_STORE = """
if (redis.call('get', KEYS[2]) or '0') ~= ARGV[1] then return 0 end
if redis.call('hlen', KEYS[1]) >= tonumber(ARGV[4]) and redis.call('hexists', KEYS[1], ARGV[2]) == 0 then
    redis.call('hdel', KEYS[1], redis.call('hrandfield', KEYS[1]))
end
redis.call('hset', KEYS[1], ARGV[2], ARGV[3])
if redis.call('ttl', KEYS[1]) < 0 then redis.call('expire', KEYS[1], ARGV[5]) end
return 1"""


class Cache:
    """Messages by group and entry; a group is invalidated as a whole. Without Redis each read is a miss."""

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        """Store all keys under `prefix`, the service's name."""
        self._client = client
        self._prefix = prefix
        #: The loads that are under way, by group, entry and the group's epoch.
        self._loads: dict[tuple[str, str, bytes], asyncio.Task[Any]] = {}

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
            async with self._client.pipeline(transaction=False) as pipeline:
                pipeline.hget(self._group(group), entry)
                pipeline.get(self._epoch(group))
                stored, epoch = await pipeline.execute()
            if stored is not None:
                return kind.FromString(stored)
        except (RedisError, DecodeError, OSError) as error:
            log.warning("cache unavailable", extra={"error": type(error).__name__})
            return await load()
        key = (group, entry, epoch or b"0")
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
            # No transaction: the epoch, which comes first, keeps out what was loaded before, and groups may be apart.
            async with self._client.pipeline(transaction=False) as pipeline:
                for group in groups:
                    pipeline.incr(self._epoch(group))
                    pipeline.expire(self._epoch(group), _EPOCH_SECONDS)
                    pipeline.delete(self._group(group))
                await pipeline.execute()
        except (RedisError, OSError) as error:
            log.warning("cache not invalidated", extra={"error": type(error).__name__})

    async def close(self) -> None:
        """End the loads that are under way, which would connect again, and close the connections."""
        await cancel_and_wait(*self._loads.values())
        await self._client.aclose()

    async def _store(self, group: str, entry: str, message: Message, seconds: int, epoch: bytes) -> None:
        arguments: tuple[Any, ...] = (epoch, entry, message.SerializeToString(), _LARGEST_GROUP, seconds)
        try:
            await self._client.eval(_STORE, 2, self._group(group), self._epoch(group), *arguments)
        except (RedisError, OSError) as error:
            log.warning("cache not written", extra={"error": type(error).__name__})

    # Hash tags: a Redis Cluster keeps a group and its epoch together, as the script demands.

    def _group(self, group: str) -> str:
        return f"{{{self._prefix}:{group}}}"

    def _epoch(self, group: str) -> str:
        return f"{{{self._prefix}:{group}}}:epoch"
