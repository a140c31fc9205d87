"""The way that calls take: deadlines and retries by the contract, and refusals that come back as classes.

* ShopError (generated base: a refusal with a reason)
* OutcomeUnknown (the call may or may not have happened)
"""

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from shop.contract import RPCS, IdempotencyLevel
from shop.errors import ShopError, error_class

Metadata = tuple[tuple[str, str], ...]

DETAILS_KEY: Final = "grpc-status-details-bin"

# After these nobody can say whether the call took effect.
_UNKNOWN = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
# How a stream ends when its connection or its server does; proxies say it in different words.
_BROKEN = _UNKNOWN - {grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED}
# A stream that breaks so many times without a message in between is given up.
_MOST_BROKEN = 8


class OutcomeUnknown(Exception):
    """A call ended without saying whether it took effect: ask, or repeat it with the same key."""

    def __init__(self, method: str, code: grpc.StatusCode) -> None:
        """`method` is the full method path."""
        super().__init__(f"{method}: {code.name}")
        self.method = method
        self.code = code


class Channel:
    """What a generated stub needs of a channel."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        metadata: Callable[[], Metadata],
        remaining: Callable[[], float | None] = lambda: None,
    ) -> None:
        """`metadata` goes with each call; `remaining` is how long our own caller still waits."""
        self._channel = channel
        self._metadata = metadata
        self._remaining = remaining

    def unary_unary(self, method: str, *serializers: Any, **options: Any) -> Callable[..., Any]:
        """Return the RPC as an async function `(request, *, timeout=None)`."""
        rpc = self._channel.unary_unary(method, *serializers, **options)

        async def call(request: Any, *, timeout: float | None = None) -> Any:  # noqa: ASYNC109  gRPC's
            try:
                return await rpc(request, timeout=self._timeout(method, timeout), metadata=self._metadata())
            except grpc.aio.AioRpcError as error:
                raise error_from_call(method, error) from None

        return call

    def unary_stream(self, method: str, *serializers: Any, **options: Any) -> Callable[..., AsyncIterator[Any]]:
        """Return the RPC as an async generator function `(request, *, timeout=None)`."""
        rpc = self._channel.unary_stream(method, *serializers, **options)

        async def call(
            request: Any,
            *,
            timeout: float | None = None,  # noqa: ASYNC109  gRPC's
        ) -> AsyncIterator[Any]:
            running = rpc(request, timeout=self._timeout(method, timeout), metadata=self._metadata())
            try:
                async for message in running:
                    yield message
            except grpc.aio.AioRpcError as error:
                raise error_from_call(method, error) from None
            finally:
                running.cancel()

        return call

    def _timeout(self, method: str, asked: float | None) -> float | None:
        """Return the least of what the caller asks, what the contract allows, and what our own caller still waits."""
        limits = (asked, RPCS[method].timeout, self._remaining())
        return min((limit for limit in limits if limit is not None), default=None)


def service_config() -> str:
    """Return gRPC's own retries, for exactly the RPCs that the contract says may be repeated."""
    retry = {
        "maxAttempts": 3,
        "initialBackoff": "0.05s",
        "maxBackoff": "0.5s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    names = [
        {"service": rpc.service, "method": rpc.method}
        for rpc in RPCS.values()
        if rpc.idempotency_level is not IdempotencyLevel.UNKNOWN and not rpc.server_streaming
    ]
    return json.dumps({"methodConfig": [{"name": names, "retryPolicy": retry}]})


CHANNEL_OPTIONS: Final = (
    ("grpc.keepalive_time_ms", 300_000),  # not below what servers allow: they answer impatience with GOAWAY
    ("grpc.max_metadata_size", 8_192),
    ("grpc.service_config", service_config()),
)


async def resumed(watch: Callable[[str], AsyncGenerator[Any, None]], token: str) -> AsyncIterator[Any]:
    """A stream that is taken up again after its last message when its connection breaks."""
    broken = 0
    while True:
        try:
            async with aclosing(watch(token)) as messages:
                async for message in messages:
                    token, broken = message.resume_token or token, 0
                    yield message
        except OutcomeUnknown as error:
            broken += 1
            if error.code not in _BROKEN or broken == _MOST_BROKEN:
                raise
        else:
            return
        await asyncio.sleep(min(0.05 * 2**broken, 2.0))


def new_key() -> str:
    """A request_id: a repeat with the same one is harmless."""
    return uuid.uuid4().hex


def error_from_status(status: status_pb2.Status) -> ShopError | None:
    """Return the error that the status was made from, or None when this build knows no such reason."""
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Unpack(info):
            kind = error_class(info.domain, info.reason)
            return kind.restored(status.message, info.metadata) if kind else None
    return None


def error_from_call(method: str, error: grpc.aio.AioRpcError) -> Exception:
    """Return what the failed call means: a refusal by class, or OutcomeUnknown."""
    if error.code() in _UNKNOWN:
        return OutcomeUnknown(method, error.code())
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                return error_from_status(status_pb2.Status.FromString(value)) or OutcomeUnknown(method, error.code())
            except DecodeError:
                break
    return OutcomeUnknown(method, error.code())
