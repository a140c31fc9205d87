"""Derives from Istio objects what happens to a call, by Istio's own semantics and without the policy.

Only what istio/ uses is understood; anything else raises ValueError, so that nothing is silently ignored.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from mesh.istio.objects import Object
from mesh.policy.table import DENIED, Decision

#: What Istio does where a route says nothing about retries.
_ISTIO_ATTEMPTS = 2
_RULE_KEYS = {"from", "to"}
_SOURCE_KEYS = {"principals", "requestPrincipals"}
_OPERATION_KEYS = {"ports", "methods", "paths"}
_ROUTE_KEYS = {"match", "timeout", "retries", "route", "headers", "directResponse"}


class Cluster:
    """The objects of a namespace."""

    def __init__(self, objects: Iterable[Object]) -> None:
        self._by_kind: dict[str, list[Object]] = defaultdict(list)
        for one in objects:
            self._by_kind[one["kind"]].append(one)
        services = {one["metadata"]["name"]: one for one in self.of_kind("Service")}
        self._namespace = next((one["metadata"]["name"] for one in self.of_kind("Namespace")), "")
        #: The labels of the processes behind each host.
        self._labels = {self._host(name): one["spec"]["selector"] for name, one in services.items()}
        self._ports = {self._host(name): [p["port"] for p in one["spec"]["ports"]] for name, one in services.items()}

    def of_kind(self, kind: str) -> list[Object]:
        """Return the objects of one kind."""
        return self._by_kind[kind]

    @property
    def strict(self) -> bool:
        """Whether every process accepts mutual TLS alone."""
        modes = [one["spec"].get("mtls", {}).get("mode") for one in self.of_kind("PeerAuthentication")]
        whole = [one for one in self.of_kind("PeerAuthentication") if "selector" not in one["spec"]]
        ports = [one for one in self.of_kind("PeerAuthentication") if "portLevelMtls" in one["spec"]]
        rules = [one["spec"]["trafficPolicy"] for one in self.of_kind("DestinationRule")]
        mutual = all(rule["tls"]["mode"] == "ISTIO_MUTUAL" for rule in rules)
        return bool(whole) and set(modes) == {"STRICT"} and not ports and mutual

    def decide(self, principal: str, account: str, path: str) -> Decision:
        """Return what happens to a gRPC call of the path by the workload with this principal and account."""
        gateway = self._gateway_of(account)
        route = self._route(gateway, path)
        if route is None or "route" not in route:
            return DENIED
        destination = route["route"][0]["destination"]
        host, port = destination["host"], destination["port"]["number"]
        if len(route["route"]) > 1 or port not in self._ports.get(host, ()):
            return DENIED
        if not gateway and not self._reaches(account, host):
            return DENIED
        if not self._authorized(self._labels[host], principal, port, path):
            return DENIED
        attempts = route.get("retries", {}).get("attempts", _ISTIO_ATTEMPTS)
        return Decision(allowed=True, timeout=_seconds(route.get("timeout", "0s")), attempts=attempts)

    def breakers(self, account: str) -> Mapping[str, float]:
        """Return the limits that callers of the workload apply. Raises KeyError when one is missing."""
        (traffic,) = [
            rule["spec"]["trafficPolicy"]
            for rule in self.of_kind("DestinationRule")
            if rule["spec"]["host"] == self._host(account)
        ]
        pool, outliers, budget = traffic["connectionPool"], traffic["outlierDetection"], traffic["retryBudget"]
        return {
            "connections": pool["tcp"]["maxConnections"],
            "pending": pool["http"]["http1MaxPendingRequests"],
            "calls": pool["http"]["http2MaxRequests"],
            "retry_budget_percent": budget["percent"],
            "retries": budget["minRetryConcurrency"],
            "failures": outliers["consecutive5xxErrors"],
            "interval": _seconds(outliers["interval"]),
            "time": _seconds(outliers["baseEjectionTime"]),
            "most_percent": outliers["maxEjectionPercent"],
        }

    def _host(self, account: str) -> str:
        return f"{account}.{self._namespace}.svc.cluster.local"

    def _gateway_of(self, account: str) -> str:
        """Return the name of the gateway that runs in the workload; empty for one with a sidecar."""
        labels = self._labels[self._host(account)]
        found = [g for g in self.of_kind("Gateway") if g["spec"]["selector"].items() <= labels.items()]
        return found[0]["metadata"]["name"] if found else ""

    def _route(self, gateway: str, path: str) -> Object | None:
        """Return the first route that takes the path; the path belongs to one service, so hosts do not overlap."""
        for service in self.of_kind("VirtualService"):
            if service["spec"].get("gateways", ["mesh"]) != [gateway or "mesh"]:
                continue
            for route in service["spec"]["http"]:
                _require_known(route, _ROUTE_KEYS)
                if any(_takes(match, path) for match in route.get("match", [{}])):
                    return dict(route)
        return None

    def _reaches(self, account: str, host: str) -> bool:
        labels = self._labels[self._host(account)]
        for sidecar in self.of_kind("Sidecar"):
            if sidecar["spec"]["workloadSelector"]["labels"].items() <= labels.items():
                return any(f"./{host}" in egress["hosts"] for egress in sidecar["spec"]["egress"])
        return True

    def _authorized(self, labels: Mapping[str, str], principal: str, port: int, path: str) -> bool:
        applying = [one["spec"] for one in self.of_kind("AuthorizationPolicy") if _selects(one["spec"], labels)]
        for action in {spec.get("action", "ALLOW") for spec in applying} - {"ALLOW", "DENY"}:
            raise ValueError(f"AuthorizationPolicy with the action {action}")
        matched = {
            spec.get("action", "ALLOW")
            for spec in applying
            if any(_admits(rule, principal, port, path) for rule in spec.get("rules", []))
        }
        if "DENY" in matched:
            return False
        return "ALLOW" in matched or all(spec.get("action") == "DENY" for spec in applying)


def _selects(spec: Object, labels: Mapping[str, str]) -> bool:
    return bool(spec.get("selector", {}).get("matchLabels", {}).items() <= labels.items())


def _admits(rule: Object, principal: str, port: int, path: str) -> bool:
    _require_known(rule, _RULE_KEYS)
    sources = [one["source"] for one in rule.get("from", [{"source": {}}])]
    operations = [one["operation"] for one in rule.get("to", [{"operation": {}}])]
    for source in sources:
        _require_known(source, _SOURCE_KEYS)  # a caller with a valid token is considered
    for operation in operations:
        _require_known(operation, _OPERATION_KEYS)
    return any(_any_of(source.get("principals"), principal) for source in sources) and any(
        _any_of(operation.get("paths"), path)
        and _any_of(operation.get("ports"), str(port))
        and _any_of(operation.get("methods"), "POST")
        for operation in operations
    )


def _any_of(patterns: list[str] | None, value: str) -> bool:
    """Return whether a pattern fits: exact, or with * at one end. Without patterns everything fits."""
    return patterns is None or any(
        value.startswith(one[:-1]) if one.endswith("*") else value.endswith(one[1:]) if one[:1] == "*" else value == one
        for one in patterns
    )


def _takes(match: Object, path: str) -> bool:
    _require_known(match, {"uri", "headers"})
    if match.get("headers", {}) not in ({}, {"content-type": {"prefix": "application/grpc"}}):
        raise ValueError(f"a route by headers {match['headers']}")
    uri = match.get("uri", {"prefix": "/"})
    _require_known(uri, {"exact", "prefix"})
    return path == uri["exact"] if "exact" in uri else path.startswith(uri["prefix"])


def _seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def _require_known(part: Object, keys: set[str]) -> None:
    if unknown := part.keys() - keys:
        raise ValueError(f"{', '.join(sorted(unknown))} is not understood")
