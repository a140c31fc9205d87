"""Listeners: one in front of each process, for mutual TLS alone, and one for each pair of caller and callee."""

from datetime import timedelta
from functools import lru_cache

from envoy_data_plane.envoy.config.accesslog import v3 as accesslog
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.listener import v3 as listener
from envoy_data_plane.envoy.config.rbac import v3 as rbac
from envoy_data_plane.envoy.extensions.access_loggers.stream import v3 as stream_log
from envoy_data_plane.envoy.extensions.filters.http.rbac import v3 as http_rbac
from envoy_data_plane.envoy.extensions.filters.http.router import v3 as router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm
from envoy_data_plane.google.protobuf import Struct

from mesh.proxy.clusters import BUFFER, http2, pack, socket_address
from mesh.xds import tls
from mesh.xds.resources import ADS, Resource, resource
from mesh.xds.routes import RBAC_FILTER

_HANDSHAKE = timedelta(seconds=5)
_IDLE = timedelta(minutes=10)
_CONCURRENT_STREAMS = 1_000
_ACCESS = {
    "time": "%START_TIME%",
    "listener": "%FILTER_CHAIN_NAME%",
    "peer": "%DOWNSTREAM_PEER_URI_SAN%",
    "path": "%PATH(NQ)%",
    "grpc_status": "%GRPC_STATUS(SNAKE_STRING)%",
    "flags": "%RESPONSE_FLAGS%",
    "tls": "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%",
    "ms": "%DURATION%",
    "traceparent": "%REQ(TRACEPARENT)%",
}


@lru_cache(1024)
def inbound_listener(name: str, address: str, workload: str, trust_domain: str) -> Resource:
    """Return the listener in front of a process: whoever has no certificate of the mesh is rejected.

    Its own rule allows nothing, so a route without a rule of its own admits no caller.
    """
    deny = hcm.HttpFilter(name=RBAC_FILTER, typed_config=pack(http_rbac.Rbac(rules=rbac.Rbac())))
    manager = _manager(name, [deny], [_access_log()])
    chain = listener.FilterChain(
        name=name,
        filters=[manager],
        transport_socket=tls.server_socket(workload, trust_domain),
        transport_socket_connect_timeout=_HANDSHAKE,
    )
    return _listener(name, address, chain, [_access_log()])


@lru_cache(1024)
def outbound_listener(name: str, address: str) -> Resource:
    """Return the listener for the calls of one workload to another: at a socket that the caller alone can reach."""
    return _listener(name, address, listener.FilterChain(name=name, filters=[_manager(name, [], [])]), [])


def _listener(name: str, address: str, chain: listener.FilterChain, logs: list[accesslog.AccessLog]) -> Resource:
    message = listener.Listener(
        name=name,
        address=socket_address(address),
        per_connection_buffer_limit_bytes=BUFFER,
        filter_chains=[chain],
        access_log=logs,  # of connections that end before a request, such as failed handshakes
    )
    return resource(name, message)


def _manager(name: str, filters: list[hcm.HttpFilter], logs: list[accesslog.AccessLog]) -> listener.Filter:
    last = hcm.HttpFilter(
        name="envoy.filters.http.router", typed_config=pack(router.Router(suppress_envoy_headers=True))
    )
    manager = hcm.HttpConnectionManager(
        stat_prefix=name,
        codec_type=hcm.HttpConnectionManagerCodecType.HTTP2,
        rds=hcm.Rds(route_config_name=name, config_source=ADS),
        http_filters=[*filters, last],
        access_log=logs,
        common_http_protocol_options=core.HttpProtocolOptions(
            headers_with_underscores_action=core.HttpProtocolOptionsHeadersWithUnderscoresAction.REJECT_REQUEST,
            idle_timeout=_IDLE,
        ),
        # Rules match whole paths: no spelling of a slash may pass for another path.
        path_with_escaped_slashes_action=hcm.HttpConnectionManagerPathWithEscapedSlashesAction.REJECT_REQUEST,
        forward_client_cert_details=hcm.HttpConnectionManagerForwardClientCertDetails.SANITIZE,
        http2_protocol_options=http2(max_concurrent_streams=_CONCURRENT_STREAMS),
        max_request_headers_kb=32,
        stream_idle_timeout=timedelta(0),
        server_name="shopmesh",
    )
    return listener.Filter(name="envoy.filters.network.http_connection_manager", typed_config=pack(manager))


def _access_log() -> accesslog.AccessLog:
    fields = core.SubstitutionFormatString(json_format=Struct.from_dict(_ACCESS))
    return accesslog.AccessLog(
        name="envoy.access_loggers.stdout", typed_config=pack(stream_log.StdoutAccessLog(log_format=fields))
    )
