"""Kubernetes objects: their form, the names of the mesh in a cluster, and the objects that Istio's refer to."""

from collections.abc import Iterator, Mapping
from typing import Any

from mesh.policy.table import Policy, Workload

Object = dict[str, Any]
NETWORKING, SECURITY, TELEMETRY = "networking.istio.io/v1", "security.istio.io/v1", "telemetry.istio.io/v1"
INGRESS, EDGE = "ingress", "edge_gateway"


def an_object(policy: Policy, kind: str, name: str, spec: Mapping[str, Any], *, version: str = NETWORKING) -> Object:
    """Return an object in the namespace of the mesh."""
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": name, "namespace": policy.deployment.namespace},
        "spec": dict(spec),
    }


def host(policy: Policy, workload: Workload) -> str:
    """Return the name under which the workload is called: svc-order.shop.svc.cluster.local."""
    return f"{workload.account}.{policy.deployment.namespace}.svc.cluster.local"


def labels(workload: Workload) -> dict[str, str]:
    """Return the labels by which objects select the processes of the workload."""
    return {"app": workload.account}


def duration(seconds: float) -> str:
    """Return the seconds as Istio writes a duration: 0.25s, 3600s."""
    return f"{seconds:g}s" if seconds % 1 else f"{int(seconds)}s"


def accounts_and_services(policy: Policy) -> Iterator[Object]:
    """Yield the namespace, and the service account and the service of each workload."""
    namespace = policy.deployment.namespace
    injected = {"istio-injection": "enabled"}
    yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": injected}}
    for workload in policy.workloads.values():
        metadata = {"name": workload.account, "namespace": namespace}
        # No service calls the API of Kubernetes.
        yield {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": metadata,
            "automountServiceAccountToken": False,
        }
        spec: Object = {"selector": labels(workload), "ports": _ports(policy, workload)}
        if workload.name == INGRESS:
            spec = {"type": "LoadBalancer"} | spec
        yield {"apiVersion": "v1", "kind": "Service", "metadata": metadata | {"labels": labels(workload)}, "spec": spec}


def _ports(policy: Policy, workload: Workload) -> list[Object]:
    cluster = policy.deployment.cluster
    if workload.name == INGRESS:
        return [_port("https", 443, "https", target=8443), _port("http", 80, "http", target=8080)]
    if workload.name == EDGE:
        return [_port("http", cluster.edge_port, "http"), _port("grpc-reflection", cluster.reflection_port, "grpc")]
    return [_port("grpc", cluster.grpc_port, "grpc")]


def _port(name: str, number: int, protocol: str, *, target: int | None = None) -> Object:
    return {"name": name, "port": number, "targetPort": target or number, "appProtocol": protocol}
