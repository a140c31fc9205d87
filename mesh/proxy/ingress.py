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
from envoy_data_plane.envoy.extensions.filters.http.buffer import v3 as buffer
from envoy_data_plane.envoy.extensions.filters.http.cors import v3 as cors
from envoy_data_plane.envoy.extensions.filters.http.grpc_web import v3 as grpc_web
from envoy_data_plane.envoy.extensions.filters.http.router import v3 as router
from envoy_data_plane.envoy.extensions.filters.listener.http_inspector import v3 as http_inspector
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm
from envoy_data_plane.envoy.extensions.http.early_header_mutation.header_mutation import v3 as early
from envoy_data_plane.envoy.extensions.resource_monitors.downstream_connections import v3 as connections
from envoy_data_plane.envoy.extensions.resource_monitors.fixed_heap import v3 as fixed_heap
from envoy_data_plane.envoy.type.matcher import v3 as matcher
from envoy_data_plane.google.protobuf import Struct

from mesh.policy.table import Policy
from mesh.proxy.clusters import BUFFER, grpc_cluster, http2, http_cluster, pack, socket_address
from mesh.proxy.inputs import IngressInputs
from mesh.proxy.local_replies import local_replies
from mesh.proxy.routes import BUFFER_FILTER, EDGE, REFLECTION, inner_routes, outer_routes, virtual_host

#: The time in which a connection must begin its first request, and in which a request must be complete.
_FIRST_BYTES = timedelta(seconds=5)
_REQUEST = timedelta(seconds=10)
#: The time for which a connection may have no request.
_IDLE = timedelta(seconds=60)
#: A little more than the edge accepts (`--max-body`), whose own answer says more.
_REQUEST_BYTES = 1024 * 1024 + 64 * 1024
_MAX_CONNECTIONS = 5_000
_HEAP = "envoy.resource_monitors.fixed_heap"
_MAX_HEAP_BYTES = 1024 * 1024 * 1024
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


def render(inputs: IngressInputs, policy: Policy) -> bootstrap.Bootstrap:
    """Return the bootstrap for these addresses and the policy of their services."""
    replicated = {name for name, addresses in inputs.services.items() if len(addresses) > 1}
    outer_host = virtual_host(outer_routes(policy, inputs.services, replicated), caller="edge")
    outer = _listener("ingress", inputs.listen, outer_host, outside=True)
    inner_host = virtual_host(inner_routes(policy, inputs.services, replicated))
    inner = [_listener("inner", inputs.inner, inner_host)] if inputs.inner else []
    clusters = [
        http_cluster(EDGE, [inputs.edge], policy.workloads[EDGE].limits),
        grpc_cluster(REFLECTION, [inputs.reflection], policy.deployment.defaults),
        *(grpc_cluster(name, addresses, policy.workloads[name].limits) for name, addresses in inputs.services.items()),
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
        # The inspector waits for the first request, so a connection that says nothing is closed.
        listener_filters=[_inspector()] if outside else [],
        listener_filters_timeout=_FIRST_BYTES,
        filter_chains=[listener.FilterChain(filters=[manager])],
    )


def _inspector() -> listener.ListenerFilter:
    return listener.ListenerFilter(
        name="envoy.filters.listener.http_inspector", typed_config=pack(http_inspector.HttpInspector())
    )


def _connection_manager(name: str, host: route.VirtualHost, *, outside: bool) -> hcm.HttpConnectionManager:
    return hcm.HttpConnectionManager(
        stat_prefix=name,
        codec_type=hcm.HttpConnectionManagerCodecType.AUTO,
        route_config=route.RouteConfiguration(name=name, virtual_hosts=[host]),
        http_filters=_filters(outside=outside),
        early_header_mutation_extensions=[_strip()] if outside else [],
        local_reply_config=local_replies(),
        upgrade_configs=[_websockets()] if outside else [],
        access_log=[_access_log()] if outside else [],
        # Against smuggling and other spellings of a path.
        common_http_protocol_options=core.HttpProtocolOptions(
            headers_with_underscores_action=core.HttpProtocolOptionsHeadersWithUnderscoresAction.REJECT_REQUEST,
            idle_timeout=_IDLE if outside else timedelta(minutes=10),
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
        # A client that is still sending has time to read why its request is rejected before the connection is reset.
        delayed_close_timeout=timedelta(seconds=5),
        # No method of the shop streams from its client, so a request is complete soon or never.
        request_timeout=_REQUEST if outside else None,
        stream_idle_timeout=timedelta(minutes=5),
        server_name="shopmesh",
        always_set_request_id_in_response=True,
    )


def _filters(*, outside: bool, buffered: bool = True) -> list[hcm.HttpFilter]:
    outer_filters = [
        hcm.HttpFilter(name="envoy.filters.http.cors", typed_config=pack(cors.Cors())),
        hcm.HttpFilter(name="envoy.filters.http.grpc_web", typed_config=pack(grpc_web.GrpcWeb())),
    ]
    # A request enters the mesh when it is complete: one that never ends holds no place of a service or of the edge.
    whole = hcm.HttpFilter(name=BUFFER_FILTER, typed_config=pack(buffer.Buffer(max_request_bytes=_REQUEST_BYTES)))
    last = hcm.HttpFilter(
        name="envoy.filters.http.router", typed_config=pack(router.Router(suppress_envoy_headers=True))
    )
    if not outside:
        return [last]
    return [*outer_filters, *([whole] if buffered else []), last]


def _websockets() -> hcm.HttpConnectionManagerUpgradeConfig:
    return hcm.HttpConnectionManagerUpgradeConfig(
        upgrade_type="websocket", filters=_filters(outside=True, buffered=False)
    )


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
    """Return the limits of the process: connections, and the memory that requests on their way in may take."""
    limit = connections.DownstreamConnectionsConfig(max_active_downstream_connections=_MAX_CONNECTIONS)
    heap = fixed_heap.FixedHeapConfig(max_heap_size_bytes=_MAX_HEAP_BYTES)
    full = overload.Trigger(name=_HEAP, threshold=overload.ThresholdTrigger(value=0.95))
    return overload.OverloadManager(
        refresh_interval=timedelta(milliseconds=250),
        resource_monitors=[
            overload.ResourceMonitor(
                name="envoy.resource_monitors.global_downstream_max_connections", typed_config=pack(limit)
            ),
            overload.ResourceMonitor(name=_HEAP, typed_config=pack(heap)),
        ],
        actions=[overload.OverloadAction(name="envoy.overload_actions.stop_accepting_requests", triggers=[full])],
    )
