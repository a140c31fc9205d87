"""The snapshot of a node: all that a proxy needs for the workloads that it serves."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mesh.pki.rotation import Rotation
from mesh.policy.table import HEALTH, HEALTH_SECONDS, Policy
from mesh.xds import listeners, routes, tls, upstreams
from mesh.xds.resources import Resource, Snapshot, snapshot


@dataclass(frozen=True, slots=True)
class Process:
    """One process of a workload. Addresses are host:port or unix:/path."""

    #: Where it serves, for its proxy alone.
    address: str
    #: Where its proxy accepts mutual TLS.
    inbound: str


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a workload runs."""

    processes: tuple[Process, ...] = ()
    #: Where its calls to each workload enter the proxy.
    outbound: Mapping[str, str] = field(default_factory=dict)


Topology = Mapping[str, Placement]


def snapshot_of(policy: Policy, topology: Topology, rotation: Rotation, workloads: Sequence[str]) -> Snapshot:
    """Return the snapshot of a proxy that serves these workloads: all on one machine, or a single one as its sidecar.

    Messages are built once for each value, so that a change costs what it changes.
    """
    identities = {name: rotation.identities[policy.spiffe_id(name)] for name in workloads}
    return snapshot(
        [
            *tls.secrets(rotation.trust_bundle, identities),
            *(one for name in workloads for one in _inbound(policy, topology[name], name)),
            *(one for name in workloads for one in _outbound(policy, topology, name)),
        ]
    )


def _inbound(policy: Policy, placement: Placement, name: str) -> Iterator[Resource]:
    workload = policy.workloads[name]
    for number, process in enumerate(placement.processes, 1):
        own = f"inbound/{name}/{number}"
        callers = {method.path: method.callers for method in workload.methods} | {HEALTH: policy.deployment.outside}
        admitted = tuple(routes.Inbound(path, tuple(map(policy.spiffe_id, names))) for path, names in callers.items())
        yield upstreams.own_process(own, workload.limits)
        yield upstreams.endpoints(own, (process.address,))
        yield listeners.inbound_listener(own, process.inbound, name, policy.deployment.trust_domain)
        yield routes.inbound_table(own, own, admitted)


def _outbound(policy: Policy, topology: Topology, name: str) -> Iterator[Resource]:
    for callee, address in sorted(topology[name].outbound.items()):
        workload, processes = policy.workloads[callee], topology[callee].processes
        own, cluster = f"outbound/{name}/{callee}", upstreams.called_name(name, callee)
        several = len(processes) > 1
        found = [routes.Outbound(HEALTH, cluster, HEALTH_SECONDS, None, replicated=several)]
        for method in workload.methods:
            retries = policy.deployment.retries if policy.attempts(method) else None
            replicated = several and not method.streams
            found.append(routes.Outbound(method.path, cluster, policy.route_timeout(method), retries, replicated))
        peer = policy.spiffe_id(callee)
        yield upstreams.called_workload(name, callee, peer, workload.limits, max(1, len(processes)))
        yield upstreams.endpoints(callee, tuple(process.inbound for process in processes))
        yield listeners.outbound_listener(own, address)
        yield routes.outbound_table(own, tuple(found))
