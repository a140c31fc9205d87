"""Envoy clusters: the processes behind a proxy, their health checks and circuit breakers."""

from collections.abc import Sequence
from datetime import timedelta

from betterproto2 import Message
from envoy_data_plane.envoy.config.cluster import v3 as cluster
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.endpoint import v3 as endpoint
from envoy_data_plane.envoy.extensions.upstreams.http import v3 as upstreams
from envoy_data_plane.envoy.type import v3 as kinds
from envoy_data_plane.google.protobuf import Any

STREAM_WINDOW = 64 * 1024
CONNECTION_WINDOW = 1024 * 1024
BUFFER = 32 * 1024
#: Concurrent live streams, twice what the edge is measured with. Each holds a request until its client leaves, and with
#: HTTP/1.1 a connection too. More would only queue: a stream costs the edge about 30 KB.
LIVE = 2_000
_BRIEF = 1_024
#: Concurrent calls of one gRPC process from outside: below what it admits (chassis.settings: 400 unary calls of 500,
#: 400 streams), so that the rest is left to health checks and to the services, which call with high priority.
CALLS_FROM_OUTSIDE = 800
_CALLS = 900


def pack(message: Message) -> Any:
    """Return the message as google.protobuf.Any."""
    return Any.pack(message)


def grpc_cluster(name: str, addresses: Sequence[str]) -> cluster.Cluster:
    """Return a cluster of gRPC processes with health checks by grpc.health.v1."""
    explicit = upstreams.HttpProtocolOptionsExplicitHttpConfig(http2_protocol_options=http2())
    check = core.HealthCheck(grpc_health_check=core.HealthCheckGrpcHealthCheck())
    requests = (CALLS_FROM_OUTSIDE * len(addresses), _CALLS * len(addresses))
    return _cluster(name, addresses, explicit, check, max_connections=256, max_requests=requests)


def http_cluster(name: str, addresses: Sequence[str]) -> cluster.Cluster:
    """Return a cluster of HTTP/1.1 processes with TCP health checks."""
    explicit = upstreams.HttpProtocolOptionsExplicitHttpConfig(http_protocol_options=core.Http1ProtocolOptions())
    check = core.HealthCheck(tcp_health_check=core.HealthCheckTcpHealthCheck())
    requests = (LIVE + _BRIEF, LIVE + _BRIEF)
    return _cluster(name, addresses, explicit, check, max_connections=LIVE + _BRIEF, max_requests=requests)


def http2(max_concurrent_streams: int | None = None) -> core.Http2ProtocolOptions:
    """Return HTTP/2 options with our window sizes."""
    return core.Http2ProtocolOptions(
        max_concurrent_streams=max_concurrent_streams,
        initial_stream_window_size=STREAM_WINDOW,
        initial_connection_window_size=CONNECTION_WINDOW,
    )


def socket_address(text: str) -> core.Address:
    """Return the address for host:port or unix:/path."""
    if text.startswith("unix:"):
        return core.Address(pipe=core.Pipe(path=text.removeprefix("unix:"), mode=0o600))
    host, _, port = text.rpartition(":")
    return core.Address(socket_address=core.SocketAddress(address=host, port_value=int(port)))


def _cluster(
    name: str,
    addresses: Sequence[str],
    protocol: upstreams.HttpProtocolOptionsExplicitHttpConfig,
    check: core.HealthCheck,
    *,
    max_connections: int,
    max_requests: tuple[int, int],
) -> cluster.Cluster:
    options = upstreams.HttpProtocolOptions(
        explicit_http_config=protocol,
        # Shorter than the idle timeout of any server behind, so that no connection is closed during a request.
        common_http_protocol_options=core.HttpProtocolOptions(idle_timeout=timedelta(seconds=60)),
    )
    return cluster.Cluster(
        name=name,
        type=cluster.ClusterDiscoveryType.STATIC,
        connect_timeout=timedelta(seconds=1),
        per_connection_buffer_limit_bytes=BUFFER,
        load_assignment=_endpoints(name, addresses),
        typed_extension_protocol_options={
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": pack(options),
        },
        health_checks=[_with_intervals(check)],
        circuit_breakers=_breakers(max_connections, *max_requests),
        # A single process is never ejected: no other could take its calls.
        outlier_detection=_outliers() if len(addresses) > 1 else None,
    )


def _endpoints(name: str, addresses: Sequence[str]) -> endpoint.ClusterLoadAssignment:
    hosts = [endpoint.LbEndpoint(endpoint=endpoint.Endpoint(address=socket_address(address))) for address in addresses]
    return endpoint.ClusterLoadAssignment(
        cluster_name=name, endpoints=[endpoint.LocalityLbEndpoints(lb_endpoints=hosts)]
    )


def _with_intervals(check: core.HealthCheck) -> core.HealthCheck:
    """Check often enough that a restarted process gets calls within a second, and a frozen one none after three."""
    check.timeout = timedelta(seconds=1)
    check.interval = check.no_traffic_interval = check.no_traffic_healthy_interval = timedelta(seconds=1)
    check.unhealthy_interval = timedelta(milliseconds=250)
    check.unhealthy_threshold = 2
    check.healthy_threshold = 1
    return check


def _breakers(max_connections: int, max_requests: int, max_priority_requests: int) -> cluster.CircuitBreakers:
    """Return limits for calls of default priority, which come from outside, and of high priority."""
    budget = cluster.CircuitBreakersThresholdsRetryBudget(
        budget_percent=kinds.Percent(value=20.0), min_retry_concurrency=3
    )
    priorities = {core.RoutingPriority.DEFAULT: max_requests, core.RoutingPriority.HIGH: max_priority_requests}
    limits = [
        cluster.CircuitBreakersThresholds(
            priority=priority,
            max_connections=max_connections,
            max_pending_requests=LIVE,  # which may all reconnect at the same time
            max_requests=requests,
            retry_budget=budget,
            track_remaining=True,
        )
        for priority, requests in priorities.items()
    ]
    return cluster.CircuitBreakers(thresholds=limits)


def _outliers() -> cluster.OutlierDetection:
    return cluster.OutlierDetection(
        consecutive_5xx=5,
        interval=timedelta(seconds=2),
        base_ejection_time=timedelta(seconds=5),
        max_ejection_percent=50,
    )
