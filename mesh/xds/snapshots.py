"""The snapshot of a node: all that a proxy needs for the workloads that it serves."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mesh.pki.rotation import Rotation
from mesh.policy.table import Policy
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
    #: Where its calls enter the proxy; empty for a workload that calls nothing.
    outbound: str = ""


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
            *(one for name in workloads if topology[name].outbound for one in _outbound(policy, topology, name)),
        ]
    )


def _inbound(policy: Policy, placement: Placement, name: str) -> Iterator[Resource]:
    workload = policy.workloads[name]
    for number, process in enumerate(placement.processes, 1):
        own = f"inbound/{name}/{number}"
        admitted = tuple(
            routes.Inbound(method.path, tuple(map(policy.spiffe_id, method.callers))) for method in workload.methods
        )
        yield upstreams.own_process(own, workload.limits)
        yield upstreams.endpoints(own, (process.address,))
        yield listeners.inbound_listener(own, process.inbound, name, policy.deployment.trust_domain)
        yield routes.inbound_table(own, own, admitted)


def _outbound(policy: Policy, topology: Topology, name: str) -> Iterator[Resource]:
    called = [callee for callee in policy.callees(name) if callee in topology]
    found: list[routes.Outbound] = []
    for callee in called:
        workload, processes = policy.workloads[callee], topology[callee].processes
        cluster = upstreams.called_name(name, callee)
        peer = policy.spiffe_id(callee)
        yield upstreams.called_workload(name, callee, peer, workload.limits, max(1, len(processes)))
        yield upstreams.endpoints(callee, tuple(process.inbound for process in processes))
        for method in workload.methods:
            retries = policy.deployment.retries if policy.attempts(method) else None
            replicated = len(processes) > 1 and not method.streams
            timeout = policy.route_timeout(method)
            found.append(routes.Outbound(method.path, cluster, timeout, retries, replicated))
    own = f"outbound/{name}"
    yield listeners.outbound_listener(own, topology[name].outbound)
    yield routes.outbound_table(own, tuple(found))
