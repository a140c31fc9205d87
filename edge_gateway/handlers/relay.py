"""One running stream over HTTP or WebSocket: reads replies while requests are sent and the client is connected."""

import asyncio
from collections.abc import Coroutine
from enum import Enum
from typing import Any, Literal

from edge_gateway.errors import EdgeError, unavailable
from edge_gateway.grpc_client.upstreams import GrpcCall
from edge_gateway.metrics import STREAMS_OPEN

#: Seconds that a drain waits for the streams to end.
_DRAIN_TIMEOUT = 1.0


class Event(Enum):
    """What `Relay.next` may return instead of a message."""

    END = 1
    IDLE = 2


class Relays:
    """The running streams, so that a drain can end them."""

    def __init__(self) -> None:
        self._live: set[Relay] = set()
        self._draining = False

    def open(self, call: GrpcCall, inbound: Coroutine[Any, Any, None]) -> "Relay":
        """Start to relay a call; during a drain, end it at once."""
        relay = Relay(call, inbound, self._live)
        if self._draining:
            relay.stop()
        return relay

    async def drain(self) -> None:
        """End all streams; return when their clients have received the error, or after a second."""
        self._draining = True
        for relay in self._live:
            relay.stop()
        if self._live:
            await asyncio.wait([relay.closed for relay in self._live], timeout=_DRAIN_TIMEOUT)


class Relay:
    """Reads a call's replies one at a time, so that a slow client applies backpressure to the back end.

    `inbound` sends the requests, then waits until the client disconnects; its exception ends the stream.
    """

    def __init__(self, call: GrpcCall, inbound: Coroutine[Any, Any, None], live: "set[Relay]") -> None:
        self._call = call
        self._inbound = asyncio.ensure_future(inbound)
        self._reading: asyncio.Task[bytes | None] | None = None
        self._stopping = False
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._live = live
        live.add(self)
        STREAMS_OPEN.inc()

    def stop(self) -> None:
        """End the stream because this process is about to exit."""
        self._stopping = True
        self._inbound.cancel()

    async def next(self, seconds: float | None) -> bytes | Literal[Event.END, Event.IDLE]:
        """Return the next reply, END, or IDLE if none came within `seconds`; raise the error that ended the stream."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._call.read())
        reading = self._reading
        await asyncio.wait({reading, self._inbound}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if reading.done():
            self._reading = None
            message = reading.result()
            return Event.END if message is None else message
        if self._inbound.done():
            raise self._end_reason()
        return Event.IDLE

    def _end_reason(self) -> BaseException:
        if self._stopping:
            return _restarting()
        return self._inbound.exception() or RuntimeError("inbound ended without an exception")

    async def close(self) -> None:
        """Cancel the call and the tasks of the stream."""
        self._live.discard(self)
        STREAMS_OPEN.dec()
        self._call.cancel()
        tasks = [task for task in (self._reading, self._inbound) if task is not None]
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            self.closed.set_result(None)


def _restarting() -> EdgeError:
    return unavailable("this edge is restarting; connect again", retry_after=1)
