"""The bootstrap of the local ingress: gRPC goes straight to the services, everything else to the edge.

Escaped slashes are kept: the JSON edge decodes %2F within a path variable, as google.api.http requires. gRPC is matched
by whole paths only, so no spelling of a slash bypasses a rule.
"""

from datetime import timedelta

from envoy_data_plane.envoy.config.accesslog import v3 as accesslog
from envoy_data_plane.envoy.config.bootstrap import v3 as bootstrap
from envoy_data_plane.envoy.config.common.mutation_rules import v3 as mutation
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.listener import v3 as listener
from envoy_data_plane.envoy.config.overload import v3 as overload
from envoy_data_plane.envoy.config.route import v3 as route
from envoy_data_plane.envoy.extensions.access_loggers.stream import v3 as stream_log
from envoy_data_plane.envoy.extensions.filters.http.cors import v3 as cors
from envoy_data_plane.envoy.extensions.filters.http.grpc_web import v3 as grpc_web
from envoy_data_plane.envoy.extensions.filters.http.router import v3 as router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm
from envoy_data_plane.envoy.extensions.http.early_header_mutation.header_mutation import v3 as early
from envoy_data_plane.envoy.extensions.resource_monitors.downstream_connections import v3 as connections
from envoy_data_plane.envoy.type.matcher import v3 as matcher
from envoy_data_plane.google.protobuf import Struct

from mesh.proxy.clusters import BUFFER, grpc_cluster, http2, http_cluster, pack, socket_address
from mesh.proxy.inputs import IngressInputs
from mesh.proxy.local_replies import json_replies
from mesh.proxy.routes import EDGE, REFLECTION, inner_routes, outer_routes, virtual_host
from mesh.services import workload
from shop.contract import RPCS

#: Headers that proxies or the mesh set: removed from requests from outside.
_INTERNAL_HEADERS = ("x-shop-", "x-envoy-", "x-forwarded-", "x-user-", "x-real-ip", "forwarded")
_ACCESS = {
    "time": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    "path": "%PATH(NQ)%",
    "status": "%RESPONSE_CODE%",
    "grpc_status": "%GRPC_STATUS(SNAKE_STRING)%",
    "flags": "%RESPONSE_FLAGS%",
    "ms": "%DURATION%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
    "upstream": "%UPSTREAM_CLUSTER%",
    "host": "%UPSTREAM_HOST%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "traceparent": "%REQ(TRACEPARENT)%",
}


def render(inputs: IngressInputs) -> bootstrap.Bootstrap:
    """Return the bootstrap for these addresses and the contract of their services."""
    rpcs = [(path, rpc) for path, rpc in RPCS.items() if workload(rpc.service) in inputs.services]
    outer = _listener("ingress", inputs.listen, virtual_host(outer_routes(rpcs), caller="edge"), outside=True)
    inner = [_listener("inner", inputs.inner, virtual_host(inner_routes(rpcs)))] if inputs.inner else []
    clusters = [
        http_cluster(EDGE, [inputs.edge]),
        grpc_cluster(REFLECTION, [inputs.reflection]),
        *(grpc_cluster(name, addresses) for name, addresses in inputs.services.items()),
    ]
    return bootstrap.Bootstrap(
        node=core.Node(id="ingress", cluster="shopmesh"),
        admin=bootstrap.Admin(address=socket_address(inputs.admin)),
        static_resources=bootstrap.BootstrapStaticResources(listeners=[outer, *inner], clusters=clusters),
        layered_runtime=_runtime(),
        overload_manager=_overload(),
    )


def _listener(name: str, address: str, host: route.VirtualHost, *, outside: bool = False) -> listener.Listener:
    manager = listener.Filter(
        name="envoy.filters.network.http_connection_manager",
        typed_config=pack(_connection_manager(name, host, outside=outside)),
    )
    return listener.Listener(
        name=name,
        address=socket_address(address),
        per_connection_buffer_limit_bytes=BUFFER,
        filter_chains=[listener.FilterChain(filters=[manager])],
    )


def _connection_manager(name: str, host: route.VirtualHost, *, outside: bool) -> hcm.HttpConnectionManager:
    return hcm.HttpConnectionManager(
        stat_prefix=name,
        codec_type=hcm.HttpConnectionManagerCodecType.AUTO,
        route_config=route.RouteConfiguration(name=name, virtual_hosts=[host]),
        http_filters=_filters(outside=outside),
        early_header_mutation_extensions=[_strip()] if outside else [],
        local_reply_config=json_replies(),
        upgrade_configs=[hcm.HttpConnectionManagerUpgradeConfig(upgrade_type="websocket")] if outside else [],
        access_log=[_access_log()] if outside else [],
        # Against smuggling and other spellings of a path.
        common_http_protocol_options=core.HttpProtocolOptions(
            headers_with_underscores_action=core.HttpProtocolOptionsHeadersWithUnderscoresAction.REJECT_REQUEST,
            idle_timeout=timedelta(minutes=10),
        ),
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action=hcm.HttpConnectionManagerPathWithEscapedSlashesAction.KEEP_UNCHANGED,
        use_remote_address=outside,
        forward_client_cert_details=hcm.HttpConnectionManagerForwardClientCertDetails.SANITIZE,
        # Against abuse of HTTP/2 and slow senders.
        http2_protocol_options=http2(max_concurrent_streams=100),
        max_request_headers_kb=16,
        request_headers_timeout=timedelta(seconds=10),
        stream_idle_timeout=timedelta(minutes=5),
        server_name="shopmesh",
        always_set_request_id_in_response=True,
    )


def _filters(*, outside: bool) -> list[hcm.HttpFilter]:
    outer_filters = [
        hcm.HttpFilter(name="envoy.filters.http.cors", typed_config=pack(cors.Cors())),
        hcm.HttpFilter(name="envoy.filters.http.grpc_web", typed_config=pack(grpc_web.GrpcWeb())),
    ]
    last = hcm.HttpFilter(
        name="envoy.filters.http.router", typed_config=pack(router.Router(suppress_envoy_headers=True))
    )
    return [*(outer_filters if outside else []), last]


def _strip() -> core.TypedExtensionConfig:
    """Return the extension that removes internal headers before Envoy reads them."""
    removals = [
        mutation.HeaderMutation(
            remove_on_match=mutation.HeaderMutationRemoveOnMatch(key_matcher=matcher.StringMatcher(prefix=prefix))
        )
        for prefix in _INTERNAL_HEADERS
    ]
    return core.TypedExtensionConfig(
        name="envoy.http.early_header_mutation.header_mutation",
        typed_config=pack(early.HeaderMutation(mutations=removals)),
    )


def _access_log() -> accesslog.AccessLog:
    fields = core.SubstitutionFormatString(json_format=Struct.from_dict(_ACCESS))
    return accesslog.AccessLog(
        name="envoy.access_loggers.stdout", typed_config=pack(stream_log.StdoutAccessLog(log_format=fields))
    )


def _runtime() -> bootstrap.LayeredRuntime:
    """Return the limits that close a connection which opens streams only to reset them (CVE-2023-44487)."""
    limits = {
        "overload.premature_reset_total_stream_count": 500,
        "overload.premature_reset_min_stream_lifetime_seconds": 1,
    }
    layer = bootstrap.RuntimeLayer(name="limits", static_layer=Struct.from_dict(limits))
    return bootstrap.LayeredRuntime(layers=[layer])


def _overload() -> overload.OverloadManager:
    limit = connections.DownstreamConnectionsConfig(max_active_downstream_connections=5_000)
    monitor = overload.ResourceMonitor(
        name="envoy.resource_monitors.global_downstream_max_connections", typed_config=pack(limit)
    )
    return overload.OverloadManager(resource_monitors=[monitor])
