"""Derives from snapshots what happens to a call, without the policy: by the routes and rules that Envoy would apply."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from envoy_data_plane.envoy.config.cluster import v3 as cluster
from envoy_data_plane.envoy.config.listener import v3 as listener
from envoy_data_plane.envoy.config.route import v3 as route
from envoy_data_plane.envoy.extensions.filters.http.rbac import v3 as http_rbac
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm
from envoy_data_plane.envoy.extensions.transport_sockets.tls import v3 as tls

from mesh.policy.table import DENIED, Decision
from mesh.xds.resources import CDS, LDS, RDS, Snapshot
from mesh.xds.routes import RBAC_FILTER


class Proxies:
    """What proxies with these snapshots do, by workload."""

    def __init__(self, snapshots: Mapping[str, Snapshot]) -> None:
        self._snapshots = snapshots
        self._strict: dict[tuple[str, str], bool] = {}
        self._routes: dict[tuple[str, str], Mapping[str, Any]] = {}

    def decide(self, caller: str, principal: str, path: str) -> Decision:
        """Return what happens to a call by the workload whose certificate has the SPIFFE id `principal`."""
        tables = [name for name in self._snapshots[caller][RDS] if name.startswith(f"outbound/{caller}/")]
        outbound = next((found for name in tables if (found := self._route(caller, name, path))), None)
        if outbound is None or outbound.route is None:
            return DENIED
        used = self._message(caller, CDS, outbound.route.cluster, cluster.Cluster)
        callee = used.eds_cluster_config.service_name
        inbound = self._route(callee, f"inbound/{callee}/1", path)
        if inbound is None or inbound.route is None or not self._mutual(callee, f"inbound/{callee}/1"):
            return DENIED
        if not used.transport_socket or not self._admits(inbound, principal):
            return DENIED
        retries = outbound.route.retry_policy
        limit = outbound.route.max_stream_duration.max_stream_duration
        return Decision(allowed=True, timeout=limit.total_seconds(), attempts=retries.num_retries if retries else 0)

    def _route(self, workload: str, table: str, path: str) -> Any:
        if (workload, table) not in self._routes:
            if table not in self._snapshots[workload][RDS]:
                return None
            (host,) = self._message(workload, RDS, table, route.RouteConfiguration).virtual_hosts
            self._routes[workload, table] = {one.match.path: one for one in reversed(host.routes) if one.match.path}
        return self._routes[workload, table].get(path)

    def _mutual(self, workload: str, name: str) -> bool:
        """Return whether every chain of the listener requires a certificate, and its own rule allows nothing."""
        if (workload, name) not in self._strict:
            chains = self._message(workload, LDS, name, listener.Listener).filter_chains
            self._strict[workload, name] = all(_requires_certificate(c) and _denies_by_default(c) for c in chains)
        return self._strict[workload, name]

    def _admits(self, inbound: Any, principal: str) -> bool:
        if (packed := inbound.typed_per_filter_config.get(RBAC_FILTER)) is None:
            return False
        policies = _parsed(http_rbac.RbacPerRoute, packed.value).rbac.rules.policies
        principals = [one for policy in policies.values() for one in policy.principals]
        return any(one.any or one.authenticated.principal_name.exact == principal for one in principals)

    def _message(self, workload: str, kind: str, name: str, form: Any) -> Any:
        found: Any = self._snapshots[workload][kind][name].resource
        return _parsed(form, found.value)


@lru_cache(8192)
def _parsed(form: Any, packed: bytes) -> Any:
    """Return the message; parsing is slow, and many calls share one."""
    return form.parse(packed)


def _requires_certificate(chain: Any) -> bool:
    if chain.transport_socket is None:
        return False
    return bool(tls.DownstreamTlsContext.parse(chain.transport_socket.typed_config.value).require_client_certificate)


def _denies_by_default(chain: Any) -> bool:
    (only,) = chain.filters
    first: Any = hcm.HttpConnectionManager.parse(only.typed_config.value).http_filters[0]
    if first.name != RBAC_FILTER:
        return False
    rules: Any = http_rbac.Rbac.parse(first.typed_config.value).rules
    return not rules.policies
