"""Who may call what: strict mutual TLS, nothing allowed by default, and one policy for each workload."""

from collections import defaultdict
from collections.abc import Iterator

from mesh.istio.objects import EDGE, INGRESS, SECURITY, Object, an_object, labels
from mesh.policy.table import HEALTH, Method, Policy, Workload
from shop.contract import Access


def for_all(policy: Policy) -> Iterator[Object]:
    """Yield what holds in the whole namespace."""
    yield an_object(policy, "PeerAuthentication", "default", {"mtls": {"mode": "STRICT"}}, version=SECURITY)
    # An empty ALLOW: whatever no other policy allows is denied.
    yield an_object(policy, "AuthorizationPolicy", "deny-by-default", {}, version=SECURITY)


def for_service(policy: Policy, workload: Workload) -> Iterator[Object]:
    """Yield the policy of a service: each method for its callers. A service without public methods needs a token."""
    tokens = _requires_tokens(workload)
    by_callers: dict[tuple[tuple[str, ...], bool], list[str]] = defaultdict(list)
    for method in workload.methods:
        by_callers[method.callers, tokens and _needs_user(method)].append(method.path)
    by_callers[policy.deployment.outside, False].append(HEALTH)
    port = policy.deployment.cluster.grpc_port
    rules = [
        {
            "from": [{"source": _source(policy, callers, with_token=with_token)}],
            "to": [{"operation": {"ports": [str(port)], "methods": ["POST"], "paths": sorted(paths)}}],
        }
        for (callers, with_token), paths in sorted(by_callers.items())
    ]
    yield _allow(policy, workload, rules)
    if tokens:
        yield _request_authentication(policy, workload)


def for_edge(policy: Policy) -> Iterator[Object]:
    """Yield the policies of the workloads that carry calls from outside."""
    edge, ingress = policy.workloads[EDGE], policy.workloads[INGRESS]
    cluster = policy.deployment.cluster
    ports = [str(cluster.edge_port), str(cluster.reflection_port)]
    from_ingress = {"source": {"principals": [policy.principal(INGRESS)]}}
    yield _allow(policy, edge, [{"from": [from_ingress], "to": [{"operation": {"ports": ports}}]}])
    # Clients outside have no certificate: they are identified by their tokens, which each service verifies.
    yield _allow(policy, ingress, [{"to": [{"operation": {"ports": ["8443", "8080"]}}]}])


def _requires_tokens(workload: Workload) -> bool:
    """Return whether no method of the service is public.

    A RequestAuthentication rejects an expired token for all methods; a public method, such as RefreshToken, ignores it.
    """
    return not any(method.access is Access.PUBLIC and method.outside for method in workload.methods)


def _needs_user(method: Method) -> bool:
    return method.outside and method.access in (Access.USER, Access.ROLES, Access.OWNER)


def _source(policy: Policy, callers: tuple[str, ...], *, with_token: bool) -> Object:
    source: Object = {"principals": [policy.principal(name) for name in callers]}
    if with_token:
        source["requestPrincipals"] = [f"{policy.tokens.issuer}/*"]
    return source


def _request_authentication(policy: Policy, workload: Workload) -> Object:
    rule = {
        "issuer": policy.tokens.issuer,
        "audiences": [policy.tokens.audience],
        # From outside, because Istio's control plane, which fetches it, is no workload of the mesh.
        "jwksUri": f"https://{policy.deployment.cluster.host}{policy.jwks_path}",
        "forwardOriginalToken": True,
    }
    spec = {"selector": {"matchLabels": labels(workload)}, "jwtRules": [rule]}
    return an_object(policy, "RequestAuthentication", workload.account, spec, version=SECURITY)


def _allow(policy: Policy, workload: Workload, rules: list[Object]) -> Object:
    spec = {"selector": {"matchLabels": labels(workload)}, "action": "ALLOW", "rules": rules}
    return an_object(policy, "AuthorizationPolicy", workload.account, spec, version=SECURITY)
