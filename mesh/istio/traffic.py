"""How calls travel within the mesh: timeouts, retries, breakers, ejection, and what each workload may reach."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from mesh.istio.objects import Object, an_object, duration, host, labels
from mesh.policy.table import HEALTH, HEALTH_SECONDS, Method, Policy, Workload
from shop.contract import ANY_WORKLOAD

#: Failures after which an idempotent call is repeated. A reply that has begun is never repeated.
_RETRY_ON = "connect-failure,refused-stream,unavailable,reset"
#: As _RETRY_ON, but only for what was not sent: also right where a repeat could take effect twice.
UNSENT = "connect-failure,refused-stream,reset-before-request"


def for_service(policy: Policy, workload: Workload) -> Iterator[Object]:
    """Yield the routes to a service from within the mesh, and the limits of its processes."""
    target = _destination(policy, workload)
    health = _route([{"uri": {"exact": HEALTH}}], target, HEALTH_SECONDS, {"attempts": 0})
    routes = [*method_routes(policy, workload, workload.methods), health]
    yield an_object(policy, "VirtualService", workload.account, {"hosts": [host(policy, workload)], "http": routes})
    yield destination_rule(policy, workload)


def method_routes(policy: Policy, workload: Workload, methods: Iterable[Method]) -> Iterator[Object]:
    """Yield a route for each group of methods that share timeout and retries."""
    groups: dict[tuple[float, int, bool], list[str]] = defaultdict(list)
    for method in methods:
        groups[policy.route_timeout(method), policy.attempts(method), method.streams].append(method.path)
    for (timeout, attempts, streams), paths in sorted(groups.items()):
        matches = [{"uri": {"exact": path}} for path in sorted(paths)]
        retries = _retries(policy, attempts, timeout, streams=streams)
        yield _route(matches, _destination(policy, workload), timeout, retries)


def destination_rule(policy: Policy, workload: Workload) -> Object:
    """Return the breakers and the ejection of the workload's processes, as each of its callers applies them."""
    breakers, ejection = workload.limits.breakers, workload.limits.ejection
    replicas = policy.deployment.cluster.replicas
    limits = {
        "tcp": {"maxConnections": breakers.connections},
        "http": {"http1MaxPendingRequests": breakers.pending, "http2MaxRequests": breakers.calls * replicas},
    }
    outliers = {
        "consecutive5xxErrors": ejection.failures,
        "interval": duration(ejection.interval),
        "baseEjectionTime": duration(ejection.time),
        "maxEjectionPercent": ejection.most_percent,
    }
    budget = {"percent": breakers.retry_budget_percent, "minRetryConcurrency": breakers.retries}
    traffic = {
        "tls": {"mode": "ISTIO_MUTUAL"},
        "connectionPool": limits,
        "outlierDetection": outliers,
        "retryBudget": budget,
    }
    return an_object(
        policy, "DestinationRule", workload.account, {"host": host(policy, workload), "trafficPolicy": traffic}
    )


def sidecar(policy: Policy, workload: Workload) -> Object:
    """Return what the workload's proxy knows of the mesh: what the workload calls, and nothing else."""
    called = [f"./{host(policy, policy.workloads[name])}" for name in policy.callees(workload.name)]
    spec = {
        "workloadSelector": {"labels": labels(workload)},
        "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"},
        "egress": [{"hosts": [*called, *_external_hosts(policy, workload)] or ["~/*"]}],
    }
    return an_object(policy, "Sidecar", workload.account, spec)


def service_entries(policy: Policy) -> Iterator[Object]:
    """Yield what is outside of the mesh."""
    for name, external in policy.deployment.external.items():
        port = {"number": external.port, "name": external.protocol.lower(), "protocol": external.protocol}
        spec = {"hosts": [external.host], "ports": [port], "location": "MESH_EXTERNAL", "resolution": "DNS"}
        yield an_object(policy, "ServiceEntry", name.replace("_", "-"), spec | {"exportTo": ["."]})


def _external_hosts(policy: Policy, workload: Workload) -> list[str]:
    names = {workload.name, ANY_WORKLOAD} if workload.methods else set()
    return [f"./{one.host}" for one in policy.deployment.external.values() if names & {*one.callers}]


def _destination(policy: Policy, workload: Workload) -> Object:
    return {"host": host(policy, workload), "port": {"number": policy.deployment.cluster.grpc_port}}


def _route(matches: list[Object], destination: Object, timeout: float, retries: Object) -> Object:
    return {
        "match": matches,
        "timeout": duration(timeout),
        "retries": retries,
        "route": [{"destination": destination}],
    }


def _retries(policy: Policy, attempts: int, timeout: float, *, streams: bool) -> Object:
    """Return the retries; without attempts it says so, because Istio repeats twice where nothing is said."""
    chosen = policy.deployment.retries
    if not attempts:
        return {"attempts": 0}
    one_try = {} if streams else {"perTryTimeout": duration(timeout * chosen.one_try_part)}
    return {
        "attempts": attempts,
        **one_try,
        "retryOn": _RETRY_ON,
        "retryIgnorePreviousHosts": True,
        "backoff": duration(chosen.pause),
    }
