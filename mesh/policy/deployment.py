"""Reads deployment.toml: the choices of a deployment. A key that is missing, unknown or out of range is an error."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from mesh.errors import StackError

_FORMS = {str: "a text", int: "a whole number from 0", float: "a number from 0", list[str]: "a list of names"}
DEFAULT = Path(__file__).with_name("deployment.toml")
T = TypeVar("T")


class PolicyError(StackError):
    """The contract or the deployment is incomplete or contradicts itself; the text names file and method or key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """The access tokens that a proxy accepts."""

    issuer: str
    audience: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """Bounds of all calls, in seconds."""

    timeout_margin: float
    longest_stream: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How an idempotent call is tried again. Times are in seconds."""

    attempts: int
    one_try_part: float
    pause: float
    longest_pause: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Breakers:
    """The circuit breakers of one process."""

    connections: int
    pending: int
    calls_from_outside: int
    calls: int
    retry_budget_percent: float
    retries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ejection:
    """When a process that fails is left out. Times are in seconds."""

    failures: int
    interval: float
    time: float
    most_percent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What a cluster with Istio adds."""

    host: str
    certificate: str
    grpc_port: int
    edge_port: int
    reflection_port: int
    replicas: int
    traced_percent: float
    tracing: str


@dataclass(frozen=True, slots=True, kw_only=True)
class External:
    """Something outside of the mesh, and the services that may reach it; `*` is every service."""

    host: str
    port: int
    protocol: str
    callers: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one workload."""

    breakers: Breakers
    ejection: Ejection


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """The choices of one deployment."""

    file: str
    trust_domain: str
    namespace: str
    outside: tuple[str, ...]
    tokens: Tokens
    calls: Calls
    retries: Retries
    cluster: Cluster
    external: Mapping[str, External]
    defaults: Limits
    #: What single workloads replace: {"svc_payment": {"breakers": {"calls": 100}}}.
    overrides: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path = DEFAULT) -> "Deployment":
        """Return the deployment in the file. Raises PolicyError."""
        reader = _Reader(path.name)
        try:
            top = tomllib.loads(path.read_text("utf-8"))
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise PolicyError(f"{path.name}: {error}") from error
        defaults, overrides = top.pop("defaults", {}), top.pop("workloads", {})
        sections: dict[str, Any] = {
            "tokens": reader.section(Tokens, top.pop("tokens", {}), "tokens"),
            "calls": reader.section(Calls, top.pop("calls", {}), "calls"),
            "retries": reader.section(Retries, top.pop("retries", {}), "retries"),
            "cluster": reader.section(Cluster, top.pop("cluster", {}), "cluster"),
            "external": {
                name: reader.section(External, one, f"external.{name}")
                for name, one in sorted(top.pop("external", {}).items())
            },
        }
        limits = Limits(
            breakers=reader.section(Breakers, defaults.pop("breakers", {}), "defaults.breakers"),
            ejection=reader.section(Ejection, defaults.pop("ejection", {}), "defaults.ejection"),
        )
        names: dict[str, Any] = {name: top.pop(name, None) for name in ("trust_domain", "namespace", "outside")}
        reader.require_none_left(top | {f"defaults.{name}": value for name, value in defaults.items()})
        if not all(names.values()) or not isinstance(names["outside"], list):
            raise PolicyError(f"{path.name}: trust_domain, namespace and outside are required")
        names["outside"] = tuple(sorted(names["outside"]))
        return cls(file=path.name, **names, **sections, defaults=limits, overrides=overrides)

    def limits(self, workload: str) -> Limits:
        """Return the limits of the workload. Raises PolicyError."""
        reader = _Reader(self.file)
        own: dict[str, Any] = dict(self.overrides.get(workload, {}))
        where = f"workloads.{workload}"
        breakers = _values(self.defaults.breakers) | own.pop("breakers", {})
        ejection = _values(self.defaults.ejection) | own.pop("ejection", {})
        reader.require_none_left({f"{where}.{name}": value for name, value in own.items()})
        return Limits(
            breakers=reader.section(Breakers, breakers, f"{where}.breakers"),
            ejection=reader.section(Ejection, ejection, f"{where}.ejection"),
        )


@dataclass(frozen=True)
class _Reader:
    """Reads sections, and names the file in errors."""

    file: str

    def section(self, kind: type[T], raw: Mapping[str, Any], name: str) -> T:
        """Return the section as an instance of the dataclass. Raises PolicyError."""
        wanted = {one.name: one.type for one in fields(kind)}  # type: ignore[arg-type]
        self.require_none_left({f"{name}.{key}": value for key, value in raw.items() if key not in wanted})
        for key, form in wanted.items():
            if key not in raw:
                raise PolicyError(f"{self.file}: {name}.{key} is missing")
            if not _fits(raw[key], form):
                raise PolicyError(f"{self.file}: {name}.{key} must be {_FORMS[form]}, not {raw[key]!r}")  # type: ignore[index]
        return kind(**raw)

    def require_none_left(self, rest: Mapping[str, object]) -> None:
        """Raise PolicyError for keys that have no meaning."""
        if rest:
            raise PolicyError(f"{self.file}: there is no setting {', '.join(sorted(rest))}")


def _fits(value: object, form: object) -> bool:
    if form is str:
        return isinstance(value, str) and bool(value)
    if form == list[str]:
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    numbers = (int, float) if form is float else int
    return isinstance(value, numbers) and not isinstance(value, bool) and value >= 0


def _values(section: object) -> dict[str, Any]:
    return {one.name: getattr(section, one.name) for one in fields(section)}  # type: ignore[arg-type]
