"""The protos of a plugin request: methods, reasons, events and fields, each with its place.

Every option is read with classes built from the request itself, so the plugin works before gen/ exists.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf import message_factory
from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
    MethodOptions,
    SourceCodeInfo,
)
from google.protobuf.descriptor_pool import DescriptorPool

_OPTIONS = "shop.options.v1."
#: The path in SourceCodeInfo of the option (shop.options.v1.topic) of a file; numbers of it follow.
_TOPICS = (8, 50101)
_NOWHERE = SourceCodeInfo.Location(span=[0, 0, 0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The file and line of a declaration, and the comment above it."""

    file: str
    line: int
    comment: str

    def __str__(self) -> str:
        return f"protos/{self.file}:{self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """An RPC; `rule` is its shop.options.v1.Rpc, None when absent."""

    service: str
    name: str
    request: Descriptor
    response: Descriptor
    client_streaming: bool
    server_streaming: bool
    idempotency_level: str
    declares_idempotency: bool
    http_verb: str | None
    http_path: str
    rule: Any
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """A value of an `ErrorReason` enum; `error` is its shop.options.v1.Error, None when absent."""

    enum: str
    name: str
    domain: str
    error: Any
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A message of an events file; `event` is its shop.options.v1.Event, None when absent."""

    message: Descriptor
    event: Any
    embedded: bool
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A topic that a file declares; `topic` is its shop.options.v1.Topic."""

    topic: Any
    package: str
    place: Place


class Schema:
    """The files to generate from."""

    def __init__(self, request: CodeGeneratorRequest) -> None:
        self._pool = DescriptorPool()
        for file in request.proto_file:
            self._pool.Add(file)
        self.files = [self._pool.FindFileByName(name) for name in sorted(request.file_to_generate)]
        protos = [file for file in request.proto_file if file.name in set(request.file_to_generate)]
        self._places = {name: place for file in protos for name, place in _places(file)}

    def methods(self) -> Iterator[Method]:
        """Yield every RPC, ordered by file and declaration."""
        for file in self.files:
            for service in file.services_by_name.values():
                for method in service.methods:
                    http = self._option(method, "MethodOptions", "google.api.http")
                    verb = http.WhichOneof("pattern") if http else None
                    level = MethodOptions.IdempotencyLevel.Name(method.GetOptions().idempotency_level)
                    yield Method(
                        service=service.full_name,
                        name=method.name,
                        request=method.input_type,
                        response=method.output_type,
                        client_streaming=method.client_streaming,
                        server_streaming=method.server_streaming,
                        idempotency_level=level.removeprefix("IDEMPOTENCY_"),
                        declares_idempotency=method.GetOptions().HasField("idempotency_level"),
                        http_verb=verb,
                        http_path=getattr(http, verb) if verb and verb != "custom" else "",
                        rule=self._option(method, "MethodOptions", _OPTIONS + "rpc"),
                        place=self._places[method.full_name],
                    )

    def reasons(self) -> Iterator[Reason]:
        """Yield every error reason except the unspecified ones."""
        for file in self.files:
            enum = file.enum_types_by_name.get("ErrorReason")
            for value in enum.values if enum else ():
                if value.number:  # zero is the unspecified one
                    yield Reason(
                        enum=value.type.full_name,
                        name=value.name.removeprefix("ERROR_REASON_"),
                        domain=f"{domain_of(file.package)}.shop",
                        error=self._option(value, "EnumValueOptions", _OPTIONS + "error"),
                        place=self._places[f"{file.package}.{value.name}"],
                    )

    def comment(self, name: str) -> str:
        """Return the comment above a service, method, message, field or enum value."""
        place = self._places.get(name)
        return place.comment if place else ""

    def is_required(self, field: FieldDescriptor) -> bool:
        """Return whether google.api.field_behavior contains REQUIRED."""
        try:
            extension: Any = self._pool.FindExtensionByName("google.api.field_behavior")
        except KeyError:  # no file of the request imports it
            return False
        kind = self._pool.FindMessageTypeByName("google.protobuf.FieldOptions")
        options = message_factory.GetMessageClass(kind).FromString(field.GetOptions().SerializeToString())
        return extension.enum_type.values_by_name["REQUIRED"].number in options.Extensions[extension]

    def events(self) -> Iterator[Event]:
        """Yield every message that is marked as an event or is a top-level message of an events file."""
        for file in self.files:
            messages = file.message_types_by_name.values()
            embedded = {
                field.message_type.full_name for message in messages for field in message.fields if field.message_type
            }
            for message in messages:
                event = self._option(message, "MessageOptions", _OPTIONS + "event")
                if event or file.name.endswith("_events.proto"):
                    yield Event(
                        message=message,
                        event=event,
                        embedded=message.full_name in embedded,
                        place=self._places[message.full_name],
                    )

    def topics(self) -> Iterator[Topic]:
        """Yield every declared topic, ordered by file and declaration."""
        for file in self.files:
            for number, topic in enumerate(self._option(file, "FileOptions", _OPTIONS + "topic") or ()):
                yield Topic(topic=topic, package=file.package, place=self._places[f"{file.name}/{number}"])

    def fields(self) -> Iterator[tuple[FieldDescriptor, bool, Place]]:
        """Yield every field, whether it is marked as sensitive, and its place."""
        for file in self.files:
            for message in _with_nested(file.message_types_by_name.values()):
                for field in message.fields:
                    sensitive = self._option(field, "FieldOptions", _OPTIONS + "sensitive")
                    yield field, bool(sensitive), self._places[field.full_name]

    def _option(self, descriptor: Any, options: str, name: str) -> Any:
        """Return the value of an extension, None when it is not set."""
        try:
            extension: Any = self._pool.FindExtensionByName(name)
        except KeyError:  # no file of the request imports it
            return None
        kind = self._pool.FindMessageTypeByName(f"google.protobuf.{options}")
        message = message_factory.GetMessageClass(kind).FromString(descriptor.GetOptions().SerializeToString())
        return message.Extensions[extension] if extension.is_repeated or message.HasExtension(extension) else None


def domain_of(package: str) -> str:
    """Return `order` for `shop.order.v1`."""
    return package.split(".")[1] if package.count(".") else package


def workload_of(service: str) -> str:
    """Return the workload that serves the gRPC service: `svc_order` for `shop.order.v1.OrderService`."""
    return f"svc_{domain_of(service)}"


def _with_nested(messages: Any) -> Iterator[Descriptor]:
    for message in messages:
        if not message.GetOptions().map_entry:
            yield message
            yield from _with_nested(message.nested_types)


def _places(file: FileDescriptorProto) -> Iterator[tuple[str, Place]]:
    locations = {tuple(location.path): location for location in file.source_code_info.location}
    for path in locations:
        if path[:-1] == _TOPICS:
            yield f"{file.name}/{path[-1]}", Place(file=file.name, line=locations[path].span[0] + 1, comment="")
    for name, path in _paths(file):
        location = locations.get(path, _NOWHERE)
        lines = (line.strip() for line in location.leading_comments.strip().splitlines())
        comment = "\n".join(line for line in lines if not line.startswith("buf:lint:ignore"))
        yield name, Place(file=file.name, line=location.span[0] + 1, comment=comment)


def _paths(file: FileDescriptorProto) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield full names with their paths in SourceCodeInfo; the numbers are field numbers of descriptor.proto."""
    for i, service in enumerate(file.service):
        yield f"{file.package}.{service.name}", (6, i)
        for j, method in enumerate(service.method):
            yield f"{file.package}.{service.name}.{method.name}", (6, i, 2, j)
    for i, message in enumerate(file.message_type):
        yield from _message_paths(message, file.package, (4, i))
    for i, enum in enumerate(file.enum_type):
        yield from _enum_paths(enum, file.package, (5, i))


def _message_paths(
    message: DescriptorProto, scope: str, path: tuple[int, ...]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    name = f"{scope}.{message.name}"
    yield name, path
    for i, field in enumerate(message.field):
        yield f"{name}.{field.name}", (*path, 2, i)
    for i, nested in enumerate(message.nested_type):
        yield from _message_paths(nested, name, (*path, 3, i))


def _enum_paths(enum: EnumDescriptorProto, scope: str, path: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    for i, value in enumerate(enum.value):  # an enum's values belong to the scope around it
        yield f"{scope}.{value.name}", (*path, 2, i)
