"""The control plane: serves each node its snapshot, and pushes what changes."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakSet

from envoy_data_plane.envoy.service.discovery import v3 as discovery
from grpclib.server import Server
from prometheus_client import Counter

from mesh.xds.resources import Snapshot
from mesh.xds.session import Nack, Session, WholeSession

log = logging.getLogger("mesh.xds")
NACKS = Counter("xds_nacks_total", "Resources that a proxy has rejected.", ["node", "type"])


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A connected proxy: whether it has accepted all that it was sent, and what it has rejected."""

    node: str
    in_sync: bool
    nacks: tuple[Nack, ...]


class ControlPlane(discovery.AggregatedDiscoveryServiceBase):
    """Serves ADS, incremental (delta) and state of the world."""

    def __init__(self) -> None:
        self._snapshots: dict[str, Snapshot] = {}
        self._streams: dict[Session, asyncio.Queue[Any]] = {}

    @property
    def nodes(self) -> list[NodeStatus]:
        """The connected proxies, by name."""
        found = [NodeStatus(one.node, one.in_sync, tuple(one.nacks)) for one in self._streams]
        return sorted(found, key=lambda status: status.node)

    def publish(self, snapshots: Mapping[str, Snapshot]) -> None:
        """Replace the snapshots, by node, and push the differences to connected proxies."""
        self._snapshots = dict(snapshots)
        for inbox in self._streams.values():
            inbox.put_nowait(None)

    def delta_aggregated_resources(self, messages: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Serve an incremental stream."""
        return self._serve(Session(), messages)

    def stream_aggregated_resources(self, messages: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Serve a state-of-the-world stream."""
        return self._serve(WholeSession(), messages)

    async def _serve(self, session: Session, messages: AsyncIterator[Any]) -> AsyncIterator[Any]:
        inbox: asyncio.Queue[Any] = asyncio.Queue()

        async def read() -> None:
            async for request in messages:
                inbox.put_nowait(request)

        # Reading goes on while a response waits for a proxy that does not read.
        reader = asyncio.create_task(read())
        reader.add_done_callback(inbox.put_nowait)
        self._streams[session] = inbox
        try:
            while (item := await inbox.get()) is not reader:
                if item is not None:
                    self._record(session, session.receive(item))
                # The newest snapshot, when nothing else waits: a slow proxy skips versions.
                if inbox.empty() and (current := self._snapshots.get(session.node)):
                    for response in session.due(current):
                        yield response
        finally:
            del self._streams[session]
            reader.cancel()

    def _record(self, session: Session, nacks: list[Nack]) -> None:
        for nack in nacks:
            kind = nack.type_url.rpartition(".")[2]
            NACKS.labels(node=session.node, type=kind).inc()
            log.warning(
                "a proxy rejects a resource",
                extra={"node": session.node, "type": kind, "resource": nack.name, "reason": nack.reason},
            )


class _Server(Server):
    """Closes its connections when it closes: grpclib leaves them open, and proxies would wait on them for ever."""

    def __init__(self, plane: ControlPlane) -> None:
        super().__init__([plane])
        self._connections: WeakSet[Any] = WeakSet()

    def _protocol_factory(self) -> Any:
        connection = super()._protocol_factory()
        self._connections.add(connection)
        return connection

    def close(self) -> None:
        super().close()
        for one in self._connections:
            if hasattr(one, "connection"):
                one.connection.close()


@asynccontextmanager
async def serving(plane: ControlPlane, socket: Path) -> AsyncIterator[None]:
    """Serve at a Unix socket, which is for our account alone: private keys travel on it."""
    server = _Server(plane)
    before = os.umask(0o077)  # a chmod after bind would leave a gap
    try:
        await server.start(path=str(socket))
    finally:
        os.umask(before)
    try:
        yield
    finally:
        server.close()
        await server.wait_closed()
