"""The xDS protocol of one stream, without I/O: requests go in, and the responses that are due come out.

A resource that its proxy has rejected (NACK) is never sent again; the last accepted one is. Make before break: changes
are sent in the order of TYPES, and removals in reverse, when everything before them has been accepted.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from envoy_data_plane.envoy.service.discovery import v3 as discovery

from mesh.xds.resources import CDS, EDS, LDS, TYPES, Resource, Snapshot, version_of


@dataclass(frozen=True, slots=True)
class Nack:
    """A resource that a proxy has rejected."""

    type_url: str
    name: str
    version: str
    reason: str


@dataclass
class _Subscription:
    """What a proxy wants of one type, and what it has."""

    wildcard: bool = False
    names: set[str] = field(default_factory=set)
    #: The versions that were sent, or that the proxy had when it connected.
    sent: dict[str, str] = field(default_factory=dict)
    #: Names to answer although nothing has changed.
    owed: set[str] = field(default_factory=set)
    nonce: str = ""
    #: What each response that is not answered yet has changed.
    unanswered: dict[str, list[Resource]] = field(default_factory=dict)
    accepted: dict[str, Resource] = field(default_factory=dict)
    rejected: dict[str, Nack] = field(default_factory=dict)

    def usable(self, current: Mapping[str, Resource]) -> dict[str, Resource]:
        """Return what may be sent: instead of a rejected resource the last accepted one, if there is one."""
        chosen = {name: self.accepted.get(name) if self._rejects(one) else one for name, one in current.items()}
        return {name: one for name, one in chosen.items() if one is not None}

    def wanted(self, usable: Mapping[str, Resource]) -> list[Resource]:
        """Return the resources that the proxy subscribes to, by name."""
        return [one for name, one in sorted(usable.items()) if self.wildcard or name in self.names]

    def rejects_any(self, current: Mapping[str, Resource]) -> bool:
        """Return whether the proxy has rejected a resource that is still current."""
        return any(self._rejects(one) for one in current.values())

    def forget_outdated_rejections(self, current: Mapping[str, Resource]) -> None:
        """Drop the rejections of versions that are not current any more."""
        self.rejected = {
            name: it for name, it in self.rejected.items() if name in current and self._rejects(current[name])
        }

    def _rejects(self, one: Resource) -> bool:
        nack = self.rejected.get(one.name)
        return nack is not None and nack.version == one.version


class Session:
    """One incremental (delta) stream."""

    def __init__(self) -> None:
        self.node = ""
        self._subscriptions: dict[str, _Subscription] = {}
        self._responses = 0
        #: Whether a cluster has changed: it waits for its endpoints (15 s), although these may be the same.
        self._warming = False

    @property
    def nacks(self) -> list[Nack]:
        """What the proxy has rejected, and has not been given a better version of."""
        return [nack for one in self._subscriptions.values() for nack in one.rejected.values()]

    @property
    def in_sync(self) -> bool:
        """Whether the proxy has accepted all that it was sent."""
        return not self.nacks and not any(one.unanswered for one in self._subscriptions.values())

    def receive(self, request: Any) -> list[Nack]:
        """Take a request, and return what it rejects. Only the first one of a stream names the node."""
        if request.node and request.node.id:
            self.node = request.node.id
        one = self._subscriptions.get(request.type_url, _Subscription())
        changed = one.unanswered.pop(request.response_nonce, [])
        new = []
        if request.error_detail:
            new = [Nack(request.type_url, c.name, c.version, request.error_detail.message) for c in changed]
            one.rejected |= {nack.name: nack for nack in new}
        else:
            one.accepted |= {change.name: change for change in changed}
        self._subscribe(request)
        return new

    def due(self, current: Snapshot) -> Iterator[Any]:
        """Yield the responses that the proxy needs to have this snapshot."""
        for kind in TYPES:
            if one := self._subscriptions.get(kind):
                one.forget_outdated_rejections(current[kind])
                if kind == EDS and self._warming:
                    one.owed |= one.names & current[EDS].keys()
                    self._warming = False
                yield from self._changes(kind, one, current[kind])
        if not any(one.unanswered for one in self._subscriptions.values()):
            yield from self._removals(current)

    def _subscribe(self, request: Any) -> None:
        names, one = set(request.resource_names_subscribe), self._subscriptions.get(request.type_url)
        if one is None:
            known = dict(request.initial_resource_versions)  # what the proxy still has after a reconnect
            one = self._subscriptions[request.type_url] = _Subscription(sent=known, owed=names - known.keys())
            one.wildcard = not names and request.type_url in (CDS, LDS)
        else:
            one.owed |= names  # requested again: the proxy may have forgotten it
        one.wildcard |= "*" in names
        one.names |= names - {"*"}
        for name in request.resource_names_unsubscribe:
            one.names.discard(name)
            one.sent.pop(name, None)

    def _changes(self, kind: str, one: _Subscription, current: Mapping[str, Resource]) -> Iterator[Any]:
        wanted = one.wanted(one.usable(current))
        changed = [it for it in wanted if it.name in one.owed or one.sent.get(it.name) != it.version]
        absent = sorted(one.owed - {"*"} - current.keys())
        one.owed = set()
        one.sent |= {it.name: it.version for it in changed}
        self._warming |= kind == CDS and bool(changed)
        if changed:
            yield from self._updates(kind, one, changed, wanted)
        if absent:
            yield self._without(kind, one, absent, wanted)

    def _removals(self, current: Snapshot) -> Iterator[Any]:
        # A rejected resource leaves an older one in use, which may refer to anything.
        if any(one.rejects_any(current[kind]) for kind, one in self._subscriptions.items() if kind in current):
            return
        for kind in reversed(TYPES):
            if one := self._subscriptions.get(kind):
                gone = sorted(one.sent.keys() - current[kind].keys())
                for name in gone:
                    del one.sent[name]
                    one.accepted.pop(name, None)
                if gone:
                    yield self._without(kind, one, gone, one.wanted(one.usable(current[kind])))
                    return  # the rest when this has been accepted

    def _updates(
        self, kind: str, one: _Subscription, changed: list[Resource], _wanted: list[Resource]
    ) -> Iterator[Any]:
        for change in changed:  # one each, so that a rejection names its resource
            yield discovery.DeltaDiscoveryResponse(type_url=kind, nonce=self._nonce(one, [change]), resources=[change])

    def _without(self, kind: str, one: _Subscription, names: list[str], _wanted: list[Resource]) -> Any:
        return discovery.DeltaDiscoveryResponse(type_url=kind, nonce=self._nonce(one, []), removed_resources=names)

    def _nonce(self, one: _Subscription, changed: list[Resource]) -> str:
        self._responses += 1
        one.nonce = str(self._responses)
        one.unanswered[one.nonce] = changed
        return one.nonce


class WholeSession(Session):
    """One state-of-the-world stream: each response holds all that is wanted of a type."""

    def __init__(self) -> None:
        super().__init__()
        #: The last response of each type: what is gone stays in it until it may be removed.
        self._last: dict[str, dict[str, Resource]] = {}

    def _subscribe(self, request: Any) -> None:
        one = self._subscriptions.setdefault(request.type_url, _Subscription())
        if one.nonce != request.response_nonce:
            return  # it answers an older response
        names = set(request.resource_names)
        one.wildcard = not names and request.type_url in (CDS, LDS)
        one.owed |= names - one.names
        one.names = names

    def _updates(self, kind: str, one: _Subscription, changed: list[Resource], wanted: list[Resource]) -> Iterator[Any]:
        kept = {name: last for name, last in self._last.get(kind, {}).items() if name in one.sent}
        yield self._response(kind, one, changed, kept | {it.name: it for it in wanted})

    def _without(self, kind: str, one: _Subscription, names: list[str], wanted: list[Resource]) -> Any:
        kept = {name: last for name, last in self._last.get(kind, {}).items() if name in one.sent}
        chosen = kept | {it.name: it for it in wanted}
        return self._response(kind, one, [], {name: it for name, it in chosen.items() if name not in names})

    def _response(self, kind: str, one: _Subscription, changed: list[Resource], chosen: dict[str, Resource]) -> Any:
        self._last[kind] = chosen
        every = [chosen[name] for name in sorted(chosen)]
        return discovery.DiscoveryResponse(
            type_url=kind,
            nonce=self._nonce(one, changed),
            version_info=version_of(every),
            resources=[it.resource for it in every if it.resource],
        )
