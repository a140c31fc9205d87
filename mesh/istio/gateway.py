"""The entry from outside: TLS, the methods that admit calls from there, and the edge for everything else."""

from collections.abc import Iterator

from mesh.istio.objects import EDGE, INGRESS, Object, an_object, host, labels
from mesh.istio.traffic import UNSENT, destination_rule, method_routes
from mesh.policy.table import Policy
from shop import contract

#: Served by the edge on behalf of all services.
_REFLECTION = ("/grpc.reflection.v1.ServerReflection/", "/grpc.reflection.v1alpha.ServerReflection/")
_HEALTH = "/grpc.health.v1.Health/"
_ANY = {"uri": {"prefix": "/"}}
_GRPC = {"content-type": {"prefix": "application/grpc"}}
#: What only the mesh sets: removed from requests from outside.
_INTERNAL_HEADERS = ["x-user-id", "x-real-ip", "forwarded"]


def for_outside(policy: Policy) -> Iterator[Object]:
    """Yield the gateway, its routes, and the limits of the edge behind it."""
    cluster = policy.deployment.cluster
    tls = {"mode": "SIMPLE", "credentialName": cluster.certificate, "minProtocolVersion": "TLSV1_2"}
    servers = [
        {"port": {"number": 8443, "name": "https", "protocol": "HTTPS"}, "hosts": [cluster.host], "tls": tls},
        {
            "port": {"number": 8080, "name": "http", "protocol": "HTTP"},
            "hosts": [cluster.host],
            "tls": {"httpsRedirect": True},
        },
    ]
    gateway = {"selector": labels(policy.workloads[INGRESS]), "servers": servers}
    yield an_object(policy, "Gateway", "ingress", gateway)
    yield an_object(
        policy,
        "VirtualService",
        "ingress",
        {"hosts": [cluster.host], "gateways": ["ingress"], "http": [*map(_from_outside, _routes(policy))]},
    )
    yield destination_rule(policy, policy.workloads[EDGE])


def _routes(policy: Policy) -> Iterator[Object]:
    for workload in policy.workloads.values():
        yield from method_routes(policy, workload, [method for method in workload.methods if method.outside])
    cluster, never = policy.deployment.cluster, {"attempts": 0}
    served = [{"uri": {"prefix": prefix}, "headers": _GRPC} for prefix in (*_REFLECTION, _HEALTH)]
    yield _to_edge(policy, cluster.reflection_port) | {"match": served, "timeout": "0s", "retries": never}
    # As a server without the method replies: a proxy translates it to UNIMPLEMENTED.
    yield {"match": [_ANY | {"headers": _GRPC}], "directResponse": {"status": 404}}
    # The edge applies each method's timeout; its event streams have none.
    unsent = {"attempts": policy.deployment.retries.attempts, "retryOn": UNSENT}
    yield _to_edge(policy, cluster.edge_port) | {"match": [_ANY], "timeout": "0s", "retries": unsent}


def _to_edge(policy: Policy, port: int) -> Object:
    destination = {"host": host(policy, policy.workloads[EDGE]), "port": {"number": port}}
    return {"route": [{"destination": destination}]}


def _from_outside(route: Object) -> Object:
    """Return the route, which removes internal headers and names the caller: `edge`."""
    if "route" not in route:
        return route
    headers = {"remove": _INTERNAL_HEADERS, "set": {"x-shop-caller": contract.EDGE}}
    return route | {"headers": {"request": headers}}
