"""Calling other services: typed stubs over channels that pass on deadline, identity and trace.

How a call goes by the contract, and how its errors come back, is shop.channel's, as for any other client.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import grpc

from chassis.context import current_call
from chassis.settings import SettingsError
from shop.channel import CHANNEL_OPTIONS, Channel, Metadata

Stub = TypeVar("Stub")


class UpstreamError(SettingsError):
    """UPSTREAMS does not say where a service is."""


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
            self._channels[target] = grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)
        return kind(Channel(self._channels[target], self._metadata, _remaining))

    def _metadata(self) -> Metadata:
        metadata = [("x-shop-caller", self._caller)]
        if call := current_call():
            metadata.append(("traceparent", call.traceparent))
            if call.authorization:
                metadata.append(("authorization", call.authorization))
        return tuple(metadata)

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


def _remaining() -> float | None:
    """Return how long our own caller still waits."""
    call = current_call()
    return call.remaining() if call else None
