"""Calling other services: typed stubs over channels that pass on deadline, identity and trace.

shop.channel makes each call as the contract says, and turns errors back into their classes, as for any other client.
"""

from collections.abc import AsyncGenerator
from typing import Any, TypeVar

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.json_format import MessageToDict

from chassis.context import current_call
from chassis.metrics import CALLED, Calls
from chassis.rpc.auth import KeySource
from chassis.rpc.revocations import RevocationSource
from chassis.settings import SettingsError
from chassis.telemetry import inject
from shop.channel import CHANNEL_OPTIONS, Channel, Metadata
from shop.contract import RPCS
from shop.services import SERVICES, service_of_stub

Stub = TypeVar("Stub")


class UpstreamError(SettingsError):
    """UPSTREAMS does not say where a service is."""


class Clients:
    """The services that a service calls, by stub class."""

    def __init__(self, upstreams: str, caller: str) -> None:
        """`upstreams` is `shop.order.v1.OrderService=host:port`, comma-separated, `*=` for every other service."""
        self._targets = dict(_parse(upstreams))
        self._caller = caller
        self._channels: dict[tuple[str, bool], grpc.aio.Channel] = {}
        self._calls = {method: Calls(method, histogram=CALLED) for method in RPCS}

    def stub(self, kind: type[Stub], *, retries: bool = True) -> Stub:
        """Return a stub of the generated class `kind`; raises UpstreamError when its service has no address.

        Without `retries` each call is one attempt, for callers that repeat calls themselves.
        """
        service = service_of_stub(kind)
        target = self._targets.get(service.name) or self._targets.get("*")
        if target is None:
            raise UpstreamError(f"UPSTREAMS names neither {service.name} nor *")
        key = (target, retries)
        if key not in self._channels:
            options = CHANNEL_OPTIONS if retries else (*CHANNEL_OPTIONS, ("grpc.enable_retries", 0))
            self._channels[key] = grpc.aio.insecure_channel(target, options=options)
        return kind(Channel(self._channels[key], self._metadata, _remaining, self._record))  # type: ignore[call-arg]  # every stub takes a channel

    def _metadata(self) -> Metadata:
        metadata = [("x-shop-caller", self._caller), *inject().items()]
        if (call := current_call()) and call.authorization:
            metadata.append(("authorization", call.authorization))
        return tuple(metadata)

    def _record(self, method: str, code: str, seconds: float) -> None:
        self._calls[method].record(code, seconds)

    async def close(self) -> None:
        """Close all channels."""
        for channel in self._channels.values():
            await channel.close()


def contract_key_source(clients: Clients) -> KeySource:
    """Fetch the key set from the RPC that the contract marks `token_keys`."""
    rpc = next(rpc for rpc in RPCS.values() if rpc.token_keys)

    async def fetch() -> dict[str, Any]:
        stub = clients.stub(SERVICES[rpc.service].stub_class)
        request = descriptor_pool.Default().FindMessageTypeByName(rpc.request_type)
        reply = await getattr(stub, rpc.method)(message_factory.GetMessageClass(request)())
        return MessageToDict(reply, preserving_proto_field_name=True)

    return fetch


def contract_revocation_source(clients: Clients) -> RevocationSource:
    """Stream the ended sessions from the RPC that the contract marks `token_revocations`."""
    rpc = next(rpc for rpc in RPCS.values() if rpc.token_revocations)

    async def stream() -> AsyncGenerator[dict[str, float], None]:
        stub = clients.stub(SERVICES[rpc.service].stub_class)
        request = descriptor_pool.Default().FindMessageTypeByName(rpc.request_type)
        async for message in getattr(stub, rpc.method)(message_factory.GetMessageClass(request)()):
            yield {one.session_id: one.expire_time.ToMilliseconds() / 1000 for one in message.revocations}

    return stream


def _parse(upstreams: str) -> list[tuple[str, str]]:
    pairs = [entry.partition("=") for entry in upstreams.split(",") if entry]
    for name, _, target in pairs:
        if not name or not target:
            raise UpstreamError(f"UPSTREAMS must be service=host:port, not {name!r}")
    return [(name, target) for name, _, target in pairs]


def _remaining() -> float | None:
    """Return how long our own caller still waits, in seconds."""
    call = current_call()
    return call.remaining() if call else None
