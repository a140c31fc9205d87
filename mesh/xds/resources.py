"""xDS resources: packed messages whose version is a hash of their bytes, so that each process computes the same one."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from betterproto2 import Message
from envoy_data_plane.envoy.config.cluster import v3 as cluster
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.endpoint import v3 as endpoint
from envoy_data_plane.envoy.config.listener import v3 as listener
from envoy_data_plane.envoy.config.route import v3 as route
from envoy_data_plane.envoy.extensions.transport_sockets.tls import v3 as tls
from envoy_data_plane.envoy.service.discovery import v3 as discovery
from envoy_data_plane.google.protobuf import Any

_KINDS: tuple[type[Message], ...] = (
    cluster.Cluster,
    endpoint.ClusterLoadAssignment,
    listener.Listener,
    route.RouteConfiguration,
    tls.Secret,
)
#: The type URLs, in the order of delivery: what is used comes before what uses it.
TYPES = CDS, EDS, LDS, RDS, SDS = tuple(Any.pack(kind()).type_url for kind in _KINDS)
#: Resources come over the stream that all types share.
ADS = core.ConfigSource(ads=core.AggregatedConfigSource(), resource_api_version=core.ApiVersion.V3)

Resource: TypeAlias = discovery.Resource
#: The resources of a node, by type URL and name.
Snapshot: TypeAlias = Mapping[str, Mapping[str, Resource]]


def resource(name: str, message: Message) -> Resource:
    """Return the message as a resource."""
    packed = bytes(message)
    version = hashlib.sha256(packed).hexdigest()[:16]
    type_url = next(url for url, kind in zip(TYPES, _KINDS, strict=True) if isinstance(message, kind))
    return discovery.Resource(name=name, version=version, resource=Any(type_url=type_url, value=packed))


def snapshot(resources: Iterable[Resource]) -> Snapshot:
    """Return the resources by type and name."""
    found: dict[str, dict[str, Resource]] = {kind: {} for kind in TYPES}
    for one in resources:
        assert one.resource is not None
        found[one.resource.type_url][one.name] = one
    return found


def version_of(resources: Iterable[Resource]) -> str:
    """Return the version of several resources together."""
    return hashlib.sha256("".join(one.version for one in resources).encode()).hexdigest()[:16]
