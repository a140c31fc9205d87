"""Envoy routes, derived from the policy: the cluster, the timeout and the retries of each RPC.

Only whole paths of known methods are routed. A path in another spelling, such as one with %2F, matches no route.
"""

from collections.abc import Container
from datetime import timedelta

from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.route import v3 as route
from envoy_data_plane.envoy.extensions.filters.http.buffer import v3 as buffer
from envoy_data_plane.envoy.extensions.filters.http.cors import v3 as cors
from envoy_data_plane.envoy.extensions.retry.host.previous_hosts import v3 as previous_hosts
from envoy_data_plane.envoy.type.matcher import v3 as matcher

from mesh.policy.deployment import Retries
from mesh.policy.table import Method, Policy
from mesh.proxy.clusters import pack

EDGE = "edge_gateway"
REFLECTION = "reflection"
#: Served by the edge on behalf of all services.
_SHARED_SERVICES = (
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "grpc.health.v1.Health",
)
_NEVER = timedelta(0)
_IDLE_REFLECTION = timedelta(seconds=60)
BUFFER_FILTER = "envoy.filters.http.buffer"
_LOCAL_ORIGIN = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?"


def outer_routes(policy: Policy, services: Container[str], replicated: Container[str] = ()) -> list[route.Route]:
    """Return the routes from outside: methods that admit calls from there, and the edge for everything else.

    `services` are those that run here, `replicated` those with several processes.
    """
    present = [method for method in policy.methods.values() if method.workload in services and method.outside]
    return [
        *(method_route(policy, method, replicated) for method in present),
        *(_service_route(name) for name in _SHARED_SERVICES),
        *_unknown_grpc(),
        _edge_route(policy.deployment.retries),
    ]


def inner_routes(policy: Policy, services: Container[str], replicated: Container[str] = ()) -> list[route.Route]:
    """Return the routes between services; the called service checks the caller."""
    high = core.RoutingPriority.HIGH
    present = [method for method in policy.methods.values() if method.workload in services]
    return [*(method_route(policy, method, replicated, priority=high) for method in present), *_unknown_grpc()]


def method_route(
    policy: Policy,
    method: Method,
    replicated: Container[str] = (),
    priority: core.RoutingPriority = core.RoutingPriority.DEFAULT,
) -> route.Route:
    """Return the route of one RPC."""
    limit = timedelta(seconds=policy.route_timeout(method))
    retries = policy.deployment.retries
    one_try = limit * retries.one_try_part if method.workload in replicated and not method.streams else None
    return route.Route(
        match=route.RouteMatch(path=method.path, headers=[_is_grpc()]),
        route=route.RouteAction(
            cluster=method.workload,
            priority=priority,
            timeout=_NEVER,  # the default of 15 s would end streams
            max_stream_duration=route.RouteActionMaxStreamDuration(
                max_stream_duration=limit, grpc_timeout_header_max=limit
            ),
            idle_timeout=_NEVER if method.streams else None,
            retry_policy=retry_policy(retries, one_try=one_try) if policy.attempts(method) else None,
        ),
    )


def virtual_host(routes: list[route.Route], *, caller: str = "") -> route.VirtualHost:
    """Return a virtual host for all names; with `caller`, every request is marked as coming from that workload."""
    caller_headers = [
        core.HeaderValueOption(
            header=core.HeaderValue(key="x-shop-caller", value=caller),
            append_action=core.HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
        )
    ]
    return route.VirtualHost(
        name="all",
        domains=["*"],
        routes=routes,
        request_headers_to_add=caller_headers if caller else [],
        typed_per_filter_config={"envoy.filters.http.cors": pack(_cors())} if caller else {},
    )


def _service_route(service: str) -> route.Route:
    return route.Route(
        match=route.RouteMatch(prefix=f"/{service}/", headers=[_is_grpc()]),
        route=route.RouteAction(cluster=REFLECTION, timeout=_NEVER, idle_timeout=_IDLE_REFLECTION),
        # A reflection stream asks again and again, so its request does not end before the first answer.
        typed_per_filter_config={BUFFER_FILTER: pack(buffer.BufferPerRoute(disabled=True))},
    )


def _unknown_grpc() -> list[route.Route]:
    """Return the routes that answer UNIMPLEMENTED, as a server without the method does."""
    unimplemented = core.HeaderValueOption(header=core.HeaderValue(key="grpc-status", value="12"))
    return [
        route.Route(
            match=route.RouteMatch(prefix="/", headers=[_is_grpc("application/grpc-web")]),
            direct_response=route.DirectResponseAction(status=200),
            response_headers_to_add=[unimplemented],
        ),
        route.Route(
            match=route.RouteMatch(prefix="/", headers=[_is_grpc()]),
            # Envoy converts it into the gRPC status, which it does not do for gRPC-Web.
            direct_response=route.DirectResponseAction(status=404),
        ),
    ]


def _edge_route(retries: Retries) -> route.Route:
    return route.Route(
        match=route.RouteMatch(prefix="/"),
        route=route.RouteAction(
            cluster=EDGE,
            timeout=_NEVER,  # the edge applies each method's timeout; its event streams have none
            # Retries only what was not sent upstream.
            retry_policy=retry_policy(retries, "connect-failure,refused-stream,reset-before-request"),
        ),
    )


def _is_grpc(content_type: str = "application/grpc") -> route.HeaderMatcher:
    """Return a matcher for gRPC content types; the default includes gRPC-Web."""
    return route.HeaderMatcher(name="content-type", string_match=matcher.StringMatcher(prefix=content_type))


def retry_policy(
    retries: Retries,
    retry_on: str = "connect-failure,refused-stream,unavailable,reset",
    one_try: timedelta | None = None,
) -> route.RetryPolicy:
    """Return retries at other processes; with `one_try`, also after that time without an answer."""
    predicate = route.RetryPolicyRetryHostPredicate(
        name="envoy.retry_host_predicates.previous_hosts",
        typed_config=pack(previous_hosts.PreviousHostsPredicate()),
    )
    pause = route.RetryPolicyRetryBackOff(
        base_interval=timedelta(seconds=retries.pause), max_interval=timedelta(seconds=retries.longest_pause)
    )
    return route.RetryPolicy(
        retry_on=retry_on,
        num_retries=retries.attempts,
        per_try_timeout=one_try,
        retry_host_predicate=[predicate],
        host_selection_retry_max_attempts=3,
        retry_back_off=pause,
    )


def _cors() -> cors.CorsPolicy:
    """Return the CORS policy: pages served on this machine may call; they send bearer tokens, so no cookies."""
    origin = matcher.StringMatcher(safe_regex=matcher.RegexMatcher(regex=_LOCAL_ORIGIN))
    return cors.CorsPolicy(
        allow_origin_string_match=[origin],
        allow_methods="GET, POST, PUT, PATCH, DELETE, OPTIONS",
        allow_headers="authorization, content-type, grpc-timeout, idempotency-key, if-match, if-none-match, "
        "last-event-id, traceparent, x-grpc-web, x-user-agent",
        expose_headers="etag, grpc-message, grpc-status, grpc-status-details-bin, ratelimit, ratelimit-policy, "
        "retry-after, x-request-id",
        max_age="7200",
    )
