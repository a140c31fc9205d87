"""Descriptors: builds the registry of a set, and reads the options of `shop.options.v1` if the set has them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from google.api import annotations_pb2, http_pb2, httpbody_pb2
from google.protobuf import any_pb2, descriptor_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from protobuf import DescMethod, DescService, Registry
from protobuf.wkt import FileDescriptorProto, FileDescriptorSet

#: Added to every set: its routes and its errors need them.
_NEEDED = (
    any_pb2, descriptor_pb2, duration_pb2, http_pb2, annotations_pb2, httpbody_pb2, error_details_pb2, status_pb2,
)  # fmt: skip

_RPC_OPTION = "shop.options.v1.rpc"
_ERROR_OPTION = "shop.options.v1.error"


class DescriptorError(ValueError):
    """A descriptor set that cannot be used."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `requests` calls of one client in `per` seconds."""

    requests: int
    per: float
    fail_closed: bool


@dataclass(frozen=True, slots=True)
class Policy:
    """A method's `(shop.options.v1.rpc)` option; a set without that option has no policies."""

    access: str
    callers: tuple[str, ...]
    timeout: float | None
    rate_limit: RateLimit | None


def load_registry(serialized: bytes) -> Registry:
    """Parse a FileDescriptorSet, or raise DescriptorError."""
    try:
        files = FileDescriptorSet.from_binary(serialized)
    except ValueError as error:
        raise DescriptorError("this is not a FileDescriptorSet") from error
    return build_registry(files.file)


def build_registry(files: Iterable[FileDescriptorProto]) -> Registry:
    """Build a registry of files in any order, with the google.api and google.rpc ones added where missing."""
    by_name = {file.name: file for file in files}
    for module in _NEEDED:
        proto = FileDescriptorProto.from_binary(module.DESCRIPTOR.serialized_pb)
        by_name.setdefault(proto.name, proto)
    ordered: dict[str, FileDescriptorProto] = {}
    for file in by_name.values():
        for message in file.message_type:
            _name_json_fields(message)
    for name in by_name:
        _add_with_imports(name, by_name, ordered, ())
    try:
        return FileDescriptorSet(file=list(ordered.values())).to_registry()
    except (ValueError, KeyError, AssertionError) as error:
        raise DescriptorError(f"the descriptors do not fit together: {error}") from error


def _name_json_fields(message: Any) -> None:
    """Fill in JSON names, which compiled-in descriptors, and so most servers' reflection, omit."""
    for field in message.field:
        if not field.json_name:
            head, *words = field.name.split("_")
            field.json_name = head + "".join(word[:1].upper() + word[1:] for word in words)
    for nested in message.nested_type:
        _name_json_fields(nested)


def _add_with_imports(
    name: str, by_name: dict[str, FileDescriptorProto], ordered: dict[str, FileDescriptorProto], above: tuple[str, ...]
) -> None:
    if name in ordered:
        return
    if name not in by_name:
        raise DescriptorError(f"{above[-1]} imports {name}, which is missing; build the set with its imports")
    if name in above:
        raise DescriptorError(f"{name} imports itself")
    for dependency in by_name[name].dependency:
        _add_with_imports(dependency, by_name, ordered, (*above, name))
    ordered[name] = by_name[name]


def services(registry: Registry) -> list[DescService]:
    """Return every service of a registry, ordered by name."""
    found = [desc for desc in registry if isinstance(desc, DescService)]
    return sorted(found, key=lambda service: service.type_name)


def option(registry: Registry, described: Any, name: str) -> Any:
    """Return the value of an extension option, or None if it is unset or unknown to the set."""
    extension = registry.extension(name)
    options = described.proto.options
    if extension is None or options is None or extension.type not in options:
        return None
    return options[extension.type]


def policy_of(registry: Registry, method: DescMethod) -> Policy | None:
    """Return a method's policy, or None if it declares none."""
    rule = option(registry, method, _RPC_OPTION)
    if rule is None:
        return None
    limit = rule.rate_limit
    return Policy(
        access=rule.access.name,
        callers=tuple(rule.callers),
        timeout=_seconds(rule.timeout),
        rate_limit=RateLimit(limit.requests, _seconds(limit.per) or 1.0, limit.fail_closed) if limit else None,
    )


def _seconds(duration: Any) -> float | None:
    return None if duration is None else duration.seconds + duration.nanos / 1e9


def has_policies(registry: Registry) -> bool:
    """Return whether a set defines the policy option."""
    return registry.extension(_RPC_OPTION) is not None


def reason_statuses(registry: Registry) -> dict[str, int]:
    """Return the HTTP statuses of the error reasons that override the status of their code."""
    statuses: dict[str, int] = {}
    if registry.extension(_ERROR_OPTION) is None:
        return statuses
    for enum in (enum for desc in registry if (enum := registry.enum(getattr(desc, "type_name", "")))):
        for value in enum.values:
            error = option(registry, value, _ERROR_OPTION)
            if error is not None and error.http_status:
                reason = value.name.removeprefix("ERROR_REASON_")
                if statuses.setdefault(reason, error.http_status) != error.http_status:
                    raise DescriptorError(f"{enum.type_name}: two statuses are named for the reason {reason}")
    return statuses
