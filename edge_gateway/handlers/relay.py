"""One running stream, whatever carries it: replies are read while requests go up and the client is watched."""

import asyncio
from collections.abc import Coroutine
from enum import Enum
from typing import Any, Literal

from edge_gateway.errors import EdgeError, unavailable
from edge_gateway.grpc_client.upstreams import GrpcCall

#: How long a drain waits for the streams to end.
_PATIENCE = 1.0


class Event(Enum):
    """What `Relay.next` may return instead of a message."""

    END = 1
    IDLE = 2


class Relays:
    """The streams that are running, so that a drain can end them."""

    def __init__(self) -> None:
        self._live: set[Relay] = set()
        self._draining = False

    def open(self, call: GrpcCall, inbound: Coroutine[Any, Any, None]) -> "Relay":
        relay = Relay(call, inbound, self._live)
        if self._draining:
            relay.stop()
        return relay

    async def drain(self) -> None:
        """Ends them all, and returns when their clients are told; those that take nothing are not waited for."""
        self._draining = True
        for relay in self._live:
            relay.stop()
        if self._live:
            await asyncio.wait([relay.closed for relay in self._live], timeout=_PATIENCE)


class Relay:
    """Reads a call's replies one at a time, so that a slow client slows the back end down.

    `inbound` sends the requests and then waits for the client to leave; what it raises ends the stream.
    """

    def __init__(self, call: GrpcCall, inbound: Coroutine[Any, Any, None], live: "set[Relay]") -> None:
        self._call = call
        self._inbound = asyncio.ensure_future(inbound)
        self._reading: asyncio.Task[bytes | None] | None = None
        self._stopping = False
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._live = live
        live.add(self)

    def stop(self) -> None:
        """Ends the stream because this process ends."""
        self._stopping = True
        self._inbound.cancel()

    async def next(self, seconds: float | None) -> bytes | Literal[Event.END, Event.IDLE]:
        """Returns the next reply, END, or IDLE when none came in time; raises what ended the stream otherwise."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._call.read())
        reading = self._reading
        await asyncio.wait({reading, self._inbound}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if reading.done():
            self._reading = None
            message = reading.result()
            return Event.END if message is None else message
        if self._inbound.done():
            raise self._verdict()
        return Event.IDLE

    def _verdict(self) -> BaseException:
        if self._stopping:
            return _restarting()
        return self._inbound.exception() or RuntimeError("inbound ended without a verdict")

    async def close(self) -> None:
        """Cancels whatever still runs."""
        self._live.discard(self)
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
