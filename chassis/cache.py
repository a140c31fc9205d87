"""A cache in Redis of whole messages, for reads that many make. Losing it costs time, never truth."""

import logging
from typing import Any, TypeVar

import redis.asyncio as redis
from google.protobuf.message import DecodeError, Message
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)

_TIMEOUT_SECONDS = 0.2


class Cache:
    """Messages by key, each for some seconds. A Redis that is away reads as a miss and is written to in vain."""

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        """Keep entries under `prefix`, the service's name."""
        self._client = client
        self._prefix = prefix

    @classmethod
    def connect(cls, url: str, prefix: str) -> "Cache":
        """Return a cache on the Redis at `url`, connected when first used."""
        return cls(redis.from_url(url, socket_timeout=_TIMEOUT_SECONDS, protocol=2), prefix)

    async def get(self, key: str, kind: type[M]) -> M | None:
        """Return the message under `key`, or None."""
        try:
            stored: Any = await self._client.get(f"{self._prefix}:{key}")
            return kind.FromString(stored) if stored is not None else None
        except (RedisError, DecodeError, OSError) as error:
            log.warning("cache miss by failure", extra={"error": type(error).__name__})
            return None

    async def put(self, key: str, message: Message, seconds: int) -> None:
        """Keep `message` under `key` for `seconds`."""
        try:
            await self._client.set(f"{self._prefix}:{key}", message.SerializeToString(), ex=seconds)
        except (RedisError, OSError) as error:
            log.warning("cache not written", extra={"error": type(error).__name__})

    async def drop(self, *keys: str) -> None:
        """Forget what is under `keys`, after a change of theirs has committed."""
        try:
            await self._client.delete(*(f"{self._prefix}:{key}" for key in keys))
        except (RedisError, OSError) as error:
            log.warning("cache not invalidated", extra={"error": type(error).__name__})

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
