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

from mesh.policy.deployment import Breakers, Ejection, Limits

STREAM_WINDOW = 64 * 1024
CONNECTION_WINDOW = 1024 * 1024
BUFFER = 32 * 1024


def pack(message: Message) -> Any:
    """Return the message as google.protobuf.Any."""
    return Any.pack(message)


def grpc_cluster(name: str, addresses: Sequence[str], limits: Limits) -> cluster.Cluster:
    """Return a cluster of gRPC processes with health checks by grpc.health.v1."""
    explicit = upstreams.HttpProtocolOptionsExplicitHttpConfig(http2_protocol_options=http2())
    check = core.HealthCheck(grpc_health_check=core.HealthCheckGrpcHealthCheck())
    return _cluster(name, addresses, explicit, check, limits)


def http_cluster(name: str, addresses: Sequence[str], limits: Limits) -> cluster.Cluster:
    """Return a cluster of HTTP/1.1 processes with TCP health checks."""
    explicit = upstreams.HttpProtocolOptionsExplicitHttpConfig(http_protocol_options=core.Http1ProtocolOptions())
    check = core.HealthCheck(tcp_health_check=core.HealthCheckTcpHealthCheck())
    return _cluster(name, addresses, explicit, check, limits)


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
    limits: Limits,
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
        circuit_breakers=breakers(limits.breakers, len(addresses)),
        # A single process is never ejected: no other could take its calls.
        outlier_detection=outliers(limits.ejection) if len(addresses) > 1 else None,
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


def breakers(limits: Breakers, processes: int) -> cluster.CircuitBreakers:
    """Return limits for calls of default priority, which come from outside, and of high priority."""
    budget = cluster.CircuitBreakersThresholdsRetryBudget(
        budget_percent=kinds.Percent(value=limits.retry_budget_percent), min_retry_concurrency=limits.retries
    )
    priorities = {
        core.RoutingPriority.DEFAULT: limits.calls_from_outside * processes,
        core.RoutingPriority.HIGH: limits.calls * processes,
    }
    thresholds = [
        cluster.CircuitBreakersThresholds(
            priority=priority,
            max_connections=limits.connections,
            max_pending_requests=limits.pending,
            max_requests=requests,
            retry_budget=budget,
            track_remaining=True,
        )
        for priority, requests in priorities.items()
    ]
    return cluster.CircuitBreakers(thresholds=thresholds)


def outliers(limits: Ejection) -> cluster.OutlierDetection:
    """Return when a process that fails is left out."""
    return cluster.OutlierDetection(
        consecutive_5xx=limits.failures,
        interval=timedelta(seconds=limits.interval),
        base_ejection_time=timedelta(seconds=limits.time),
        max_ejection_percent=limits.most_percent,
    )
