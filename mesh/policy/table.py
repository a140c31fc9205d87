"""The table: every workload with its limits, and every method with its callers, timeout and retries."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mesh.policy.deployment import Deployment, Limits, Tokens
from shop.contract import EDGE, Access, RateLimit

#: Every service answers it. Only workloads that carry calls from outside may call it: the edge reports it at /healthz.
HEALTH = "/grpc.health.v1.Health/Check"
HEALTH_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One RPC, as proxies see it. Times are in seconds."""

    #: The HTTP/2 path of a call: `/shop.order.v1.OrderService/GetOrder`.
    path: str
    workload: str
    access: Access
    roles: tuple[str, ...]
    #: The workloads that may call, in alphabetical order.
    callers: tuple[str, ...]
    #: Whether calls from outside are admitted.
    outside: bool
    #: The longest that a call may take; None for a stream without a limit of its own.
    timeout: float | None
    streams: bool
    idempotent: bool
    rate_limit: RateLimit | None
    #: Where it is declared: `protos/shop/order/v1/order_service.proto:20`.
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One workload: a service, or one that carries calls from outside."""

    name: str
    methods: tuple[Method, ...]
    limits: Limits

    @property
    def account(self) -> str:
        """Its service account, under the names that Kubernetes allows: `svc-order`."""
        return self.name.replace("_", "-")


@dataclass(frozen=True, slots=True)
class Decision:
    """What a proxy does with a call: whether it passes, for how many seconds, and how often it is tried again."""

    allowed: bool
    timeout: float = 0.0
    attempts: int = 0


DENIED = Decision(allowed=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """All workloads of the mesh, by name, and what holds for all of them."""

    workloads: Mapping[str, Workload]
    deployment: Deployment
    tokens: Tokens
    #: The JSON path at which the keys of access tokens are published.
    jwks_path: str

    @property
    def methods(self) -> dict[str, Method]:
        """Every method by its path."""
        return {method.path: method for workload in self.workloads.values() for method in workload.methods}

    def spiffe_id(self, workload: str) -> str:
        """Return the identity in the workload's certificate. Raises LookupError."""
        return f"spiffe://{self.principal(workload)}"

    def principal(self, workload: str) -> str:
        """Return the identity as Istio writes it, without the scheme. Raises LookupError."""
        account = self.workloads[workload].account
        return f"{self.deployment.trust_domain}/ns/{self.deployment.namespace}/sa/{account}"

    def caller(self, spiffe_id: str) -> str:
        """Return the name that the contract gives to this identity as a caller; empty for an unknown one."""
        for name in self.workloads:
            if self.spiffe_id(name) == spiffe_id:
                return EDGE if name in self.deployment.outside else name
        return ""

    def callees(self, caller: str) -> list[str]:
        """Return the workloads of which the caller may call a method, in alphabetical order."""
        return sorted({method.workload for method in self.methods.values() if caller in method.callers})

    def route_timeout(self, method: Method) -> float:
        """Return the seconds after which a proxy ends a call of the method."""
        calls = self.deployment.calls
        return calls.longest_stream if method.timeout is None else method.timeout + calls.timeout_margin

    def attempts(self, method: Method) -> int:
        """Return how often a proxy may try a call again; 0 where a repeat could take effect twice."""
        return self.deployment.retries.attempts if method.idempotent else 0

    def decide(self, caller: str, path: str) -> Decision:
        """Return what happens to a call of this workload."""
        method = self.methods.get(path)
        if method is None or caller not in method.callers:
            return DENIED
        return Decision(allowed=True, timeout=self.route_timeout(method), attempts=self.attempts(method))

    def decisions(self) -> dict[tuple[str, str], Decision]:
        """Return the decision for every workload and method."""
        return {(caller, path): self.decide(caller, path) for caller, path in self._pairs()}

    def _pairs(self) -> Iterator[tuple[str, str]]:
        for caller in self.workloads:
            for path in self.methods:
                yield caller, path
