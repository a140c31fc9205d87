"""Calling other services: typed stubs over channels that pass on deadline, identity and trace, and bring errors back.

The generated stubs take a channel; ours is a thin one around grpc.aio's, so no interceptor stands in the way.
"""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import grpc

from chassis.context import current_call
from chassis.errors import error_from_call
from chassis.settings import SettingsError
from shop.contract import RPCS, IdempotencyLevel

Stub = TypeVar("Stub")

_OPTIONS = (
    ("grpc.keepalive_time_ms", 300_000),  # not below what servers allow: they answer impatience with GOAWAY
    ("grpc.max_metadata_size", 8_192),
)


class UpstreamError(SettingsError):
    """UPSTREAMS does not say where a service is."""


class Channel:
    """What a generated stub needs of a channel, for the services of one address."""

    def __init__(self, channel: grpc.aio.Channel, caller: str) -> None:
        """Make calls over `channel` as the workload `caller`."""
        self._channel = channel
        self._caller = caller

    def unary_unary(self, method: str, *serializers: Any, **options: Any) -> Callable[..., Any]:
        """Return the RPC as an async function `(request, *, timeout=None)`."""
        rpc = self._channel.unary_unary(method, *serializers, **options)

        async def call(request: Any, *, timeout: float | None = None) -> Any:  # noqa: ASYNC109
            try:
                return await rpc(request, timeout=_timeout(method, timeout), metadata=self._metadata())
            except grpc.aio.AioRpcError as error:
                raise error_from_call(method, error) from None

        return call

    def unary_stream(self, method: str, *serializers: Any, **options: Any) -> Callable[..., AsyncIterator[Any]]:
        """Return the RPC as an async generator function `(request, *, timeout=None)`."""
        rpc = self._channel.unary_stream(method, *serializers, **options)

        async def call(request: Any, *, timeout: float | None = None) -> AsyncIterator[Any]:  # noqa: ASYNC109
            try:
                async for message in rpc(request, timeout=_timeout(method, timeout), metadata=self._metadata()):
                    yield message
            except grpc.aio.AioRpcError as error:
                raise error_from_call(method, error) from None

        return call

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        metadata = [("x-shop-caller", self._caller)]
        if call := current_call():
            metadata.append(("traceparent", call.traceparent))
            if call.authorization:
                metadata.append(("authorization", call.authorization))
        return tuple(metadata)


class Clients:
    """The services that a service calls, by stub class."""

    def __init__(self, upstreams: str, caller: str) -> None:
        """`upstreams` is `shop.order.v1.OrderService=host:port`, comma-separated, `*=` for every other service."""
        self._targets = dict(_parse(upstreams))
        self._caller = caller
        self._channels: dict[str, grpc.aio.Channel] = {}

    def stub(self, kind: Callable[[Any], Stub], service: str) -> Stub:
        """Return a stub of class `kind` for the full service name, such as `shop.order.v1.OrderService`."""
        target = self._targets.get(service) or self._targets.get("*")
        if target is None:
            raise UpstreamError(f"UPSTREAMS names neither {service} nor *")
        if target not in self._channels:
            options = [*_OPTIONS, ("grpc.service_config", _service_config())]
            self._channels[target] = grpc.aio.insecure_channel(target, options=options)
        return kind(Channel(self._channels[target], self._caller))

    async def close(self) -> None:
        """Close all channels."""
        for channel in self._channels.values():
            await channel.close()


def _parse(upstreams: str) -> list[tuple[str, str]]:
    pairs = [entry.partition("=") for entry in upstreams.split(",") if entry]
    for name, _, target in pairs:
        if not name or not target:
            raise UpstreamError(f"UPSTREAMS must be service=host:port, not {name!r}")
    return [(name, target) for name, _, target in pairs]


def _timeout(method: str, asked: float | None) -> float | None:
    """Return the least of what the caller asks, what the contract allows, and what our own caller still waits."""
    call = current_call()
    limits = (asked, RPCS[method].timeout, call.remaining() if call else None)
    return min((limit for limit in limits if limit is not None), default=None)


def _service_config() -> str:
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
    config = {"name": names, "retryPolicy": retry}
    return json.dumps({"methodConfig": [config]})
