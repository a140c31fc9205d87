"""Compiles descriptors and a deployment into the table. Raises PolicyError for all that is missing or contradictory."""

from collections.abc import Iterable
from pathlib import Path

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

import shop
from mesh.codegen import checks, schema
from mesh.policy.deployment import Deployment, PolicyError
from mesh.policy.table import Method, Policy, Workload
from shop.contract import ANY_WORKLOAD, EDGE, Access, RateLimit

DESCRIPTORS = Path(shop.__path__[0], "shop.binpb")
_OPTIONS_PACKAGE = "shop.options."


def compile_policy(descriptors: FileDescriptorSet | None = None, deployment: Deployment | None = None) -> Policy:
    """Return the table of the descriptors, or of the contract; `deployment` replaces the one in deployment.toml."""
    if descriptors is None:
        descriptors = FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())
    chosen = deployment or Deployment.read()
    declared = _schema(descriptors)
    if found := checks.method_problems(declared):
        raise PolicyError("the contract has no policy:\n" + "\n".join(found))
    methods = list(declared.methods())
    services = sorted({schema.workload_of(method.service) for method in methods})
    _check_names(chosen, services)
    table = [_method(method, services, chosen) for method in methods]
    names = sorted({*services, *chosen.outside})
    return Policy(
        workloads={name: _workload(name, table, chosen) for name in names},
        deployment=chosen,
        tokens=chosen.tokens,
        jwks_path=_jwks_path(methods),
    )


def _schema(descriptors: FileDescriptorSet) -> schema.Schema:
    ours = [
        file.name
        for file in descriptors.file
        if file.package.startswith("shop.") and not file.package.startswith(_OPTIONS_PACKAGE)
    ]
    return schema.Schema(CodeGeneratorRequest(file_to_generate=ours, proto_file=descriptors.file))


def _check_names(deployment: Deployment, services: list[str]) -> None:
    known = {*services, *deployment.outside}
    if unknown := sorted(set(deployment.overrides) - known):
        names = ", ".join(sorted(known))
        raise PolicyError(f"{deployment.file}: there is no workload {', '.join(unknown)}; the workloads are {names}")
    for name, external in deployment.external.items():
        if unknown := sorted({*external.callers} - {*services, ANY_WORKLOAD}):
            raise PolicyError(f"{deployment.file}: external.{name}: there is no service {', '.join(unknown)}")
    if both := sorted(set(deployment.outside) & set(services)):
        raise PolicyError(f"{deployment.file}: {', '.join(both)} cannot be outside: its methods are in the contract")


def _workload(name: str, methods: Iterable[Method], deployment: Deployment) -> Workload:
    limits = deployment.limits(name)
    if limits.breakers.calls_from_outside > limits.breakers.calls:
        raise PolicyError(
            f"{deployment.file}: workloads.{name}.breakers: calls_from_outside is more than calls, "
            "which leaves nothing to the services"
        )
    own = tuple(method for method in methods if method.workload == name)
    return Workload(name=name, methods=own, limits=limits)


def _method(method: schema.Method, services: list[str], deployment: Deployment) -> Method:
    rule = method.rule
    access = checks.enum_name(rule, "access").removeprefix("ACCESS_").lower()
    limit = RateLimit(
        requests=rule.rate_limit.requests,
        per=checks.seconds(rule.rate_limit.per),
        fail_closed=rule.rate_limit.fail_closed,
    )
    return Method(
        path=f"/{method.service}/{method.name}",
        workload=schema.workload_of(method.service),
        access=Access(access),
        roles=tuple(rule.roles),
        callers=_callers(rule.callers, services, deployment),
        outside=EDGE in rule.callers,
        timeout=checks.seconds(rule.timeout) if rule.HasField("timeout") else None,
        streams=method.server_streaming or method.client_streaming,
        idempotent=method.idempotency_level in ("NO_SIDE_EFFECTS", "IDEMPOTENT"),
        rate_limit=limit if rule.HasField("rate_limit") else None,
        place=str(method.place),
    )


def _callers(declared: Iterable[str], services: list[str], deployment: Deployment) -> tuple[str, ...]:
    """Return the workloads that the contract's names of callers stand for."""
    groups = {EDGE: deployment.outside, ANY_WORKLOAD: tuple(services)}
    return tuple(sorted({name for caller in declared for name in groups.get(caller, (caller,))}))


def _jwks_path(methods: Iterable[schema.Method]) -> str:
    """Return the JSON path of the RPC that publishes the keys of tokens; empty when the contract has none."""
    return next((method.http_path for method in methods if method.rule.token_keys), "")
