"""What a running Envoy says of the processes behind it, by its admin interface."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from mesh.errors import StackError

_OPEN = r"circuit_breakers.*_open$"


@dataclass(frozen=True, slots=True)
class Upstream:
    """One process behind a proxy."""

    cluster: str
    address: str
    #: Empty while it gets calls; else why not, such as "failed_outlier_check".
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProxyStatus:
    """The processes behind a proxy, and the circuit breakers that are open now."""

    upstreams: tuple[Upstream, ...]
    tripped: tuple[str, ...]


def proxy_status(admin: str) -> ProxyStatus:
    """Return the status of the proxy whose admin interface is at unix:/path. Raises StackError."""
    transport = httpx.HTTPTransport(uds=admin.removeprefix("unix:"))
    try:
        with httpx.Client(transport=transport, base_url="http://admin", timeout=5.0) as client:
            clusters = client.get("/clusters", params={"format": "json"}).raise_for_status().json()
            stats = client.get("/stats", params={"format": "json", "filter": _OPEN}).raise_for_status().json()
    except httpx.HTTPError as error:
        raise StackError(f"the proxy at {admin} does not answer: {error}") from error
    found = [
        Upstream(one["name"], _address(host["address"]), tuple(_reasons(host.get("health_status", {}))))
        for one in clusters.get("cluster_statuses", [])
        for host in one.get("host_statuses", [])
    ]
    tripped = [stat["name"].removeprefix("cluster.") for stat in stats["stats"] if stat.get("value")]
    return ProxyStatus(tuple(found), tuple(sorted(tripped)))


def _reasons(health: Mapping[str, Any]) -> list[str]:
    """Return why a process gets no calls: each failed check."""
    return sorted(name for name, value in health.items() if name.startswith("failed_") and value)


def _address(raw: Mapping[str, Any]) -> str:
    socket = raw.get("socket_address")
    return f"{socket['address']}:{socket['port_value']}" if socket else f"unix:{raw['pipe']['path']}"
