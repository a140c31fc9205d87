"""A channel that applies the contract to each call: its deadline, its retries, and its errors as generated classes.

* ShopError (generated base: an error with a reason)
* OutcomeUnknown (the call may or may not have taken effect)
"""

import asyncio
import json
import time
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

# With these codes the call may or may not have taken effect.
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
# The codes of a stream whose connection or server ended; proxies differ in which one they send.
_BROKEN = _UNKNOWN - {grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED}
# A stream fails after so many breaks in a row without a message.
_MAX_BREAKS = 8


class OutcomeUnknown(Exception):
    """The call may or may not have taken effect: read the state, or repeat the call with the same key."""

    def __init__(self, method: str, code: grpc.StatusCode) -> None:
        """Take the full method path and the status code."""
        super().__init__(f"{method}: {code.name}")
        self.method = method
        self.code = code


class Channel:
    """The part of grpc.aio.Channel that a generated stub uses."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        metadata: Callable[[], Metadata],
        remaining: Callable[[], float | None] = lambda: None,
        record: Callable[[str, str, float], None] = lambda _method, _code, _seconds: None,
    ) -> None:
        """`metadata` is sent with each call; `remaining` returns the seconds left of an outer call's deadline.

        `record` gets the method, the code and the seconds of every unary call that has ended.
        """
        self._channel = channel
        self._metadata = metadata
        self._remaining = remaining
        self._record = record

    def unary_unary(self, method: str, *serializers: Any, **options: Any) -> Callable[..., Any]:
        """Return the RPC as an async function `(request, *, timeout=None)`."""
        rpc = self._channel.unary_unary(method, *serializers, **options)

        async def call(request: Any, *, timeout: float | None = None) -> Any:  # noqa: ASYNC109  gRPC's
            began, code = time.perf_counter(), "CANCELLED"
            try:
                reply = await rpc(request, timeout=self._timeout(method, timeout), metadata=self._metadata())
                code = "OK"
            except grpc.aio.AioRpcError as error:
                code = error.code().name
                raise error_from_call(method, error) from None
            finally:
                self._record(method, code, time.perf_counter() - began)
            return reply

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

    def _timeout(self, method: str, requested: float | None) -> float | None:
        """Return the shortest of the requested timeout, the contract's, and the rest of the outer call's deadline."""
        limits = (requested, RPCS[method].timeout, self._remaining())
        return min((limit for limit in limits if limit is not None), default=None)


def service_config() -> str:
    """Return the gRPC service config that retries exactly the RPCs that the contract calls idempotent."""
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
    ("grpc.keepalive_time_ms", 300_000),  # servers answer more frequent pings with GOAWAY
    ("grpc.max_metadata_size", 8_192),
    ("grpc.service_config", service_config()),
)


async def resumed(watch: Callable[[str], AsyncGenerator[Any, None]], token: str) -> AsyncIterator[Any]:
    """Yield the messages of a stream, resumed after the last one when its connection breaks or its time is over."""
    breaks = 0
    while True:
        received = False
        try:
            async with aclosing(watch(token)) as messages:
                async for message in messages:
                    token, breaks, received = message.resume_token or token, 0, True
                    yield message
        except ShopError as error:
            # The access token expired during the stream; the next call sends the one that is current then.
            token_expired = received and error.reason == "TOKEN_INVALID"
            if error.reason != "STREAM_EXPIRED" and not token_expired:
                raise
        except OutcomeUnknown as error:
            breaks += 1
            if error.code not in _BROKEN or breaks == _MAX_BREAKS:
                raise
        else:
            return
        await asyncio.sleep(min(0.05 * 2**breaks, 2.0))


def new_key() -> str:
    """Return a new request_id; a repeat with the same one takes effect once."""
    return uuid.uuid4().hex


def error_from_status(status: status_pb2.Status) -> ShopError | None:
    """Return the error that the status carries, or None for a reason that this build does not know."""
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    found = [detail for detail in status.details if detail.Unpack(info)]
    kind = error_class(info.domain, info.reason) if found else None
    if kind is None:
        return None
    error = kind.restored(status.message, info.metadata)
    if any(detail.Unpack(retry) for detail in status.details):
        error.retry_after(retry.retry_delay.ToTimedelta().total_seconds())
    return error


def error_from_call(method: str, error: grpc.aio.AioRpcError) -> Exception:
    """Return the error class of the failed call, or OutcomeUnknown."""
    if error.code() in _UNKNOWN:
        return OutcomeUnknown(method, error.code())
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                return error_from_status(status_pb2.Status.FromString(value)) or OutcomeUnknown(method, error.code())
            except DecodeError:
                break
    return OutcomeUnknown(method, error.code())
