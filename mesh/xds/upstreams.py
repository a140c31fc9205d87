"""Clusters and their endpoints: a workload's own processes, and the proxies in front of the workloads that it calls."""

from datetime import timedelta
from functools import lru_cache

from envoy_data_plane.envoy.config.cluster import v3 as cluster
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.endpoint import v3 as endpoint
from envoy_data_plane.envoy.extensions.upstreams.http import v3 as upstreams

from mesh.policy.deployment import Limits
from mesh.proxy.clusters import BUFFER, breakers, http2, outliers, pack, socket_address
from mesh.xds import tls
from mesh.xds.resources import ADS, Resource, resource

#: A connection is replaced after this time, so that no certificate is in use for much longer.
CONNECTION_LIFETIME = timedelta(minutes=15)
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_KEEPALIVE = core.KeepaliveSettings(interval=timedelta(seconds=30), timeout=timedelta(seconds=5))


@lru_cache(4096)
def called_workload(caller: str, callee: str, peer: str, limits: Limits, processes: int) -> Resource:
    """Return the cluster by which `caller` calls the workload with the SPIFFE id `peer`."""
    return _cluster(called_name(caller, callee), callee, limits, processes, tls.client_socket(caller, peer))


@lru_cache(4096)
def own_process(name: str, limits: Limits) -> Resource:
    """Return the cluster of one process of a workload, behind its own proxy."""
    return _cluster(name, name, limits, 1, None)


@lru_cache(4096)
def endpoints(name: str, addresses: tuple[str, ...]) -> Resource:
    """Return the endpoints of a cluster."""
    hosts = [endpoint.LbEndpoint(endpoint=endpoint.Endpoint(address=socket_address(address))) for address in addresses]
    locality = endpoint.LocalityLbEndpoints(lb_endpoints=hosts)
    return resource(name, endpoint.ClusterLoadAssignment(cluster_name=name, endpoints=[locality]))


def called_name(caller: str, callee: str) -> str:
    """Return the name of the cluster by which one workload calls another."""
    return f"{caller}/{callee}"


def _cluster(
    name: str, endpoint_name: str, limits: Limits, processes: int, socket: core.TransportSocket | None
) -> Resource:
    explicit = upstreams.HttpProtocolOptionsExplicitHttpConfig(http2_protocol_options=_http2())
    common = core.HttpProtocolOptions(max_connection_duration=CONNECTION_LIFETIME if socket else None)
    options = upstreams.HttpProtocolOptions(explicit_http_config=explicit, common_http_protocol_options=common)
    message = cluster.Cluster(
        name=name,
        type=cluster.ClusterDiscoveryType.EDS,
        eds_cluster_config=cluster.ClusterEdsClusterConfig(eds_config=ADS, service_name=endpoint_name),
        connect_timeout=timedelta(seconds=1),
        per_connection_buffer_limit_bytes=BUFFER,
        typed_extension_protocol_options={_HTTP_OPTIONS: pack(options)},
        circuit_breakers=breakers(limits.breakers, processes),
        # A single process is never ejected: no other could take its calls.
        outlier_detection=outliers(limits.ejection) if processes > 1 else None,
        transport_socket=socket,
    )
    return resource(name, message)


def _http2() -> core.Http2ProtocolOptions:
    options = http2()
    options.connection_keepalive = _KEEPALIVE
    return options
