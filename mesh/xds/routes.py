"""Routes: outbound with timeouts and retries; inbound with the callers of each method.

Policies travel on routes: a changed route holds at once, while a changed listener leaves open connections as they are.
"""

from datetime import timedelta
from functools import lru_cache
from typing import NamedTuple

from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.rbac import v3 as rbac
from envoy_data_plane.envoy.config.route import v3 as route
from envoy_data_plane.envoy.extensions.filters.http.rbac import v3 as http_rbac
from envoy_data_plane.envoy.type.matcher import v3 as matcher
from envoy_data_plane.google.protobuf import Any

from mesh.policy.deployment import Retries
from mesh.proxy.clusters import pack
from mesh.proxy.routes import retry_policy
from mesh.xds.resources import Resource, resource

RBAC_FILTER = "envoy.filters.http.rbac"
#: The SPIFFE id of the caller, set by the proxy of the called workload and by nothing else.
PEER_HEADER = "x-shop-peer"
_NEVER = timedelta(0)


class Outbound(NamedTuple):
    """How calls to a method are made."""

    path: str
    cluster: str
    timeout: float
    #: None for a method that is never repeated.
    retries: Retries | None
    #: Whether there is another process, at which a call is tried after a part of its time.
    replicated: bool


class Inbound(NamedTuple):
    """Which SPIFFE ids may call a method."""

    path: str
    callers: tuple[str, ...]


@lru_cache(1024)
def outbound_table(name: str, methods: tuple[Outbound, ...]) -> Resource:
    """Return the routes of the calls of one workload to another."""
    host = route.VirtualHost(
        name="all",
        domains=["*"],
        routes=[*map(_outbound, methods), _unknown()],
        request_headers_to_remove=[PEER_HEADER],
    )
    return resource(name, route.RouteConfiguration(name=name, virtual_hosts=[host]))


@lru_cache(1024)
def inbound_table(name: str, cluster: str, methods: tuple[Inbound, ...]) -> Resource:
    """Return the routes to the process behind a proxy, which learns who calls."""
    peer = core.HeaderValueOption(
        header=core.HeaderValue(key=PEER_HEADER, value="%DOWNSTREAM_PEER_URI_SAN%"),
        append_action=core.HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
    )
    host = route.VirtualHost(
        name="all",
        domains=["*"],
        routes=[*(_inbound(one, cluster) for one in methods), _unknown()],
        request_headers_to_add=[peer],
    )
    return resource(name, route.RouteConfiguration(name=name, virtual_hosts=[host]))


def _outbound(method: Outbound) -> route.Route:
    limit, retries = timedelta(seconds=method.timeout), method.retries
    one_try = limit * retries.one_try_part if retries and method.replicated else None
    return route.Route(
        match=route.RouteMatch(path=method.path),
        route=route.RouteAction(
            cluster=method.cluster,
            timeout=_NEVER,  # the default of 15 s would end streams
            max_stream_duration=route.RouteActionMaxStreamDuration(
                max_stream_duration=limit, grpc_timeout_header_max=limit
            ),
            idle_timeout=_NEVER,
            retry_policy=repeats(retries, one_try) if retries else None,
        ),
    )


def _inbound(method: Inbound, cluster: str) -> route.Route:
    return route.Route(
        match=route.RouteMatch(path=method.path),
        route=route.RouteAction(cluster=cluster, timeout=_NEVER, idle_timeout=_NEVER),
        typed_per_filter_config={RBAC_FILTER: _admit(method.callers)},
    )


@lru_cache(1024)
def repeats(retries: Retries, one_try: timedelta | None) -> route.RetryPolicy:
    """Return the retries of a method: few differ, and building a message is slow."""
    return retry_policy(retries, one_try=one_try)


def _unknown() -> route.Route:
    """Return the route of all other paths, which gRPC reads as UNIMPLEMENTED."""
    return route.Route(match=route.RouteMatch(prefix="/"), direct_response=route.DirectResponseAction(status=404))


@lru_cache(4096)
def _admit(callers: tuple[str, ...]) -> Any:
    """Return the rule that admits these callers alone, and none when there are none."""
    names = [matcher.StringMatcher(exact=caller) for caller in callers]
    principals = [rbac.Principal(authenticated=rbac.PrincipalAuthenticated(principal_name=name)) for name in names]
    policy = rbac.Policy(permissions=[rbac.Permission(any=True)], principals=principals)
    # Envoy rejects an empty list of principals.
    rules = rbac.Rbac(policies={"callers": policy} if callers else {})
    return pack(http_rbac.RbacPerRoute(rbac=http_rbac.Rbac(rules=rules)))
