"""The back ends: which channel a method goes to, and its calls as raw bytes."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from grpc.aio import AioRpcError, Channel, Metadata

RawMetadata = Sequence[tuple[str, str | bytes]]

_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.lb_policy_name", "round_robin"),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.use_local_subchannel_pool", 1),
)


class UpstreamError(Exception):
    """A status other than OK."""

    def __init__(self, code: int, message: str, initial: RawMetadata, trailing: RawMetadata) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.initial = initial
        self.trailing = trailing


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a call with a single reply."""

    message: bytes
    initial: RawMetadata
    trailing: RawMetadata


class UnknownServiceError(LookupError):
    """No upstream is named for a service."""


class Upstreams:
    """Opens a channel for each target when it is first used."""

    def __init__(self, targets: dict[str, str], *, max_message: int, root_certificates: bytes | None = None) -> None:
        self._targets = targets
        self._options = [
            *_OPTIONS,
            ("grpc.max_receive_message_length", max_message),
            ("grpc.max_send_message_length", max_message),
        ]
        self._root_certificates = root_certificates
        self._channels: dict[str, Channel] = {}
        self._unary: dict[str, Any] = {}
        self._streams: dict[str, Any] = {}

    def target(self, service: str) -> str:
        """The target of a service: by its name, by the longest `pkg.*` that fits, or `*`."""
        parts = service.split(".")
        patterns = [service, *(".".join(parts[:count]) + ".*" for count in range(len(parts) - 1, 0, -1)), "*"]
        for pattern in patterns:
            if pattern in self._targets:
                return self._targets[pattern]
        raise UnknownServiceError(service)

    def targets(self) -> list[str]:
        """Every distinct target."""
        return sorted(set(self._targets.values()))

    def channel(self, target: str) -> Channel:
        channel = self._channels.get(target)
        if channel is None:
            channel = self._channels[target] = self._open(target)
        return channel

    async def unary(self, method: str, request: bytes, metadata: RawMetadata, deadline: float | None) -> Reply:
        """Makes a call with one message either way; raises UpstreamError."""
        multicallable = self._unary.get(method)
        if multicallable is None:
            multicallable = self._unary[method] = self._for(method).unary_unary(method)
        return await _unary(multicallable, request, metadata, deadline)

    async def unary_at(
        self, target: str, method: str, request: bytes, metadata: RawMetadata, deadline: float | None
    ) -> Reply:
        """Like `unary`, at a given target."""
        return await _unary(self.channel(target).unary_unary(method), request, metadata, deadline)

    def stream(self, method: str, metadata: RawMetadata, deadline: float | None) -> "Call":
        """Opens a call with any number of messages either way."""
        multicallable = self._streams.get(method)
        if multicallable is None:
            multicallable = self._streams[method] = self._for(method).stream_stream(method)
        return Call(multicallable(metadata=metadata, timeout=deadline))

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close()

    def _for(self, method: str) -> Channel:
        return self.channel(self.target(method[1:].partition("/")[0]))

    def _open(self, target: str) -> Channel:
        secure = target.startswith("grpcs://")
        address = target.removeprefix("grpcs://").removeprefix("grpc://")
        if secure:
            credentials = grpc.ssl_channel_credentials(self._root_certificates)
            return grpc.aio.secure_channel(address, credentials, options=self._options)
        return grpc.aio.insecure_channel(address, options=self._options)


class Call:
    """A running call with streams: written by one task, read by another."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._messages = aiter(call)

    async def write(self, message: bytes) -> bool:
        """Sends a message, waiting for room; false when the call has ended, which `read` then explains."""
        try:
            await self._call.write(message)
        except (AioRpcError, asyncio.InvalidStateError):
            return False
        return True

    async def done_writing(self) -> None:
        await self._call.done_writing()

    async def read(self) -> bytes | None:
        """Returns the next message, None at a good end, or raises UpstreamError."""
        try:
            message: bytes = await anext(self._messages)
        except StopAsyncIteration:
            return None
        except AioRpcError as error:
            raise _as_upstream_error(error) from None
        return message

    async def initial_metadata(self) -> RawMetadata:
        return _pairs(await self._call.initial_metadata())

    async def trailing_metadata(self) -> RawMetadata:
        return _pairs(await self._call.trailing_metadata())

    def cancel(self) -> None:
        self._call.cancel()


async def _unary(multicallable: Any, request: bytes, metadata: RawMetadata, deadline: float | None) -> Reply:
    call = multicallable(request, metadata=metadata, timeout=deadline)
    try:
        message = await call
        return Reply(message, _pairs(await call.initial_metadata()), _pairs(await call.trailing_metadata()))
    except AioRpcError as error:
        raise _as_upstream_error(error) from None


def _as_upstream_error(error: AioRpcError) -> UpstreamError:
    return UpstreamError(
        error.code().value[0],
        error.details() or "",
        _pairs(error.initial_metadata()),
        _pairs(error.trailing_metadata()),
    )


def _pairs(metadata: Metadata | Iterable[Any] | None) -> RawMetadata:
    return [(key, value) for key, value in metadata] if metadata is not None else ()


def parse_upstreams(texts: Iterable[str]) -> dict[str, str]:
    """Parses `pkg.Service=host:port` and `*=host:port`, several joined by commas or given apart."""
    targets: dict[str, str] = {}
    for text in texts:
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, equals, target = part.partition("=")
            if not equals or not name or not target:
                raise ValueError(f"upstream {part!r} is not of the form pkg.Service=host:port or *=host:port")
            if targets.setdefault(name, target) != target:
                raise ValueError(f"two upstreams are named for {name!r}")
    return targets
