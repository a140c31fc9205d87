"""Compares Istio objects with the policy: each call of each workload, and the limits of each workload."""

from collections.abc import Iterator

from mesh.istio.objects import INGRESS
from mesh.istio.reading import Cluster
from mesh.policy.table import Decision, Policy, Workload


def disagreements(policy: Policy, cluster: Cluster) -> list[str]:
    """Return what the objects say otherwise than the policy, a line for each call or limit."""
    try:
        return [*_identity(cluster), *_calls(policy, cluster), *_limits(policy, cluster)]
    except (KeyError, ValueError) as error:
        return [f"cannot be compared: {error!r}"]


def _identity(cluster: Cluster) -> Iterator[str]:
    if not cluster.strict:
        yield "plain text is accepted: mutual TLS must be STRICT for all, and ISTIO_MUTUAL in each DestinationRule"


def _calls(policy: Policy, cluster: Cluster) -> Iterator[str]:
    for (caller, path), wanted in policy.decisions().items():
        found = cluster.decide(policy.principal(caller), policy.workloads[caller].account, path)
        if found != wanted:
            yield f"{caller} -> {path}: {_words(found)} instead of {_words(wanted)}"


def _words(decision: Decision) -> str:
    if not decision.allowed:
        return "denied"
    return f"allowed for {decision.timeout:g} s with {decision.attempts} retries"


def _limits(policy: Policy, cluster: Cluster) -> Iterator[str]:
    for workload in policy.workloads.values():
        if workload.name == INGRESS:
            continue
        found, wanted = cluster.breakers(workload.account), _wanted(policy, workload)
        for name, value in wanted.items():
            if found[name] != value:
                yield f"{workload.name}: {name} is {found[name]} instead of {value}"


def _wanted(policy: Policy, workload: Workload) -> dict[str, object]:
    breakers, ejection = workload.limits.breakers, workload.limits.ejection
    return {
        "connections": breakers.connections,
        "pending": breakers.pending,
        "calls": breakers.calls * policy.deployment.cluster.replicas,
        "retry_budget_percent": breakers.retry_budget_percent,
        "retries": breakers.retries,
        "failures": ejection.failures,
        "interval": ejection.interval,
        "time": ejection.time,
        "most_percent": ejection.most_percent,
    }
