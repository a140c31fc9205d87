"""Renders the Python client: the way a call takes by the contract, a class for each service, and all of them in one."""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor

from mesh.codegen.render_python import HEAD, docstring
from mesh.codegen.schema import Method, Schema, domain_of

#: Goes into gen/ as it is, so that clients need nothing else; a module here, so that it is checked like any other.
_CHANNEL = Path(__file__).with_name("runtime") / "channel.py"
_EMPTY = "google.protobuf.Empty"
_RAW = "google.api.HttpBody"

_SCALARS = {
    FieldDescriptor.TYPE_STRING: ("str", '""'),
    FieldDescriptor.TYPE_BYTES: ("bytes", 'b""'),
    FieldDescriptor.TYPE_BOOL: ("bool", "False"),
    FieldDescriptor.TYPE_DOUBLE: ("float", "0.0"),
    FieldDescriptor.TYPE_FLOAT: ("float", "0.0"),
}


def render(schema: Schema) -> dict[str, str]:
    """Every module by its path below gen/."""
    services: dict[str, list[Method]] = defaultdict(list)
    for method in schema.methods():
        if _is_for_clients(method):
            services[method.service].append(method)
    modules = {"shop/channel.py": _CHANNEL.read_text(), "shop/client.py": _client(schema, services)}
    for service, methods in services.items():
        domain = domain_of(service)
        modules[f"shop/{domain}/v1/{domain}_client.py"] = _service(schema, service, methods)
    return {path: HEAD + text for path, text in modules.items()}


def _is_for_clients(method: Method) -> bool:
    """What the ingress lets in, and a person would call: webhooks are for machines that sign them."""
    return method.rule is not None and "edge" in method.rule.callers and method.request.full_name != _RAW


# --- all services in one ------------------------------------------------------------------------------------

_CLIENT = '''"""The shop for Python programs, over gRPC. Nothing but this package, grpcio and protobuf is needed.

    async with ShopClient("localhost:8080") as shop:
        tokens = await shop.users.login(email=..., password=...)
        shop.token = tokens.access_token
        order = await shop.orders.create_order(lines=[...], currency_code="EUR", ...)
        async for change in shop.orders.watch_order(order_id=order.order_id):
            ...
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

import grpc

from shop.channel import CHANNEL_OPTIONS, Channel, Metadata
%(imports)s


class ShopClient:
    """The services behind one address; an attribute for each."""

    def __init__(
        self,
        target: str,
        *,
        token: str | Callable[[], str] = "",
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Metadata = (),
    ) -> None:
        """`target` is host:port; `token` is a user's access token, or what returns the present one for each call."""
        self.token = token
        self._metadata = metadata
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)
        else:
            self._channel = grpc.aio.secure_channel(target, credentials, options=CHANNEL_OPTIONS)
        channel = Channel(self._channel, self._sent)
%(attributes)s

    def _sent(self) -> Metadata:
        token = self.token() if callable(self.token) else self.token
        return (*self._metadata, ("authorization", f"Bearer {token}")) if token else self._metadata

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection; calls that run are cancelled."""
        await self._channel.close()
'''


def _client(schema: Schema, services: dict[str, list[Method]]) -> str:
    imports, attributes = [], []
    for service in services:
        domain = domain_of(service)
        kind = _class_name(service)
        imports.append(f"from shop.{domain}.v1.{domain}_client import {kind}")
        attributes.append(f"        self.{_attribute(schema, service)} = {kind}(channel)")
    return _CLIENT % {"imports": "\n".join(sorted(imports)), "attributes": "\n".join(attributes)}


def _attribute(schema: Schema, service: str) -> str:
    """`orders` where the domain has a resource of its own name, else the domain's name: `catalog`."""
    domain = domain_of(service)
    names = {method.name for method in schema.methods() if method.service == service}
    if f"Get{domain.capitalize()}" not in names:
        return domain
    return f"{domain[:-1]}ies" if re.search("[^aeiou]y$", domain) else f"{domain}s"


def _class_name(service: str) -> str:
    return service.rpartition(".")[2].removesuffix("Service") + "Client"


# --- one service --------------------------------------------------------------------------------------------

_SERVICE = '''"""%(service)s for Python programs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

%(imports)s
from shop.channel import Channel, new_key, resumed


class %(class)s:
    %(docstring)s

    def __init__(self, channel: Channel) -> None:
        stub: Any = %(stub)s
        self._stub: %(stub)s = stub(channel)
%(methods)s'''


def _service(schema: Schema, service: str, methods: list[Method]) -> str:
    name = service.rpartition(".")[2]
    stubs = f"{PurePosixPath(methods[0].place.file).stem}_pb2_grpc"
    package = ".".join(PurePosixPath(methods[0].place.file).parent.parts)
    modules = {f"from {package} import {stubs}"}
    for method in methods:
        modules.update(_imports(method))
    return _SERVICE % {
        "service": service,
        "imports": "\n".join(sorted(modules)),
        "class": _class_name(service),
        "docstring": docstring(schema.comment(service) or f"Calls {name}."),
        "stub": f"{stubs}.{name}Stub",
        "methods": "".join(_method(schema, method) for method in methods),
    }


def _method(schema: Schema, method: Method) -> str:
    fields = list(method.request.fields)
    arguments = [_argument(schema, field) for field in fields]
    # One that must be given comes first, though all go by their names.
    arguments.sort(key=lambda argument: "=" in argument)
    request = f"{_python_type(method.request)}({', '.join(map(_passed, fields))})"
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", method.name).lower()
    returns = _python_type(method.response) if method.response.full_name != _EMPTY else "None"
    if method.server_streaming:
        return _stream(method, name, arguments, request, returns)
    return f"""
    async def {name}(self, *, {"".join(f"{it}, " for it in arguments)}timeout: float | None = None) -> {returns}:
        {docstring(method.place.comment)}
        request = {request}
        {"" if returns == "None" else "return "}await self._stub.{method.name}(request, timeout=timeout)
"""


def _stream(method: Method, name: str, arguments: list[str], request: str, returns: str) -> str:
    head = f"def {name}(self, *, {', '.join(arguments)}) -> AsyncIterator[{returns}]:"
    if not {"resume_token"} <= {field.name for field in method.request.fields}:
        return f"""
    {head}
        {docstring(method.place.comment)}
        stream: Any = self._stub.{method.name}
        return stream({request})
"""
    return f"""
    {head}
        {docstring(method.place.comment)}
        stream: Any = self._stub.{method.name}

        def watch(resume_token: str) -> Any:
            return stream({request})

        return resumed(watch, resume_token)
"""


def _argument(schema: Schema, field: FieldDescriptor) -> str:
    kind, default = _kind(field)
    if field.name == "request_id":
        return 'request_id: str = ""'
    return f"{field.name}: {kind}" if schema.is_required(field) else f"{field.name}: {_or_none(kind, default)}"


def _or_none(kind: str, default: str) -> str:
    return f"{kind} | None = None" if default == "None" else f"{kind} = {default}"


def _passed(field: FieldDescriptor) -> str:
    return "request_id=request_id or new_key()" if field.name == "request_id" else f"{field.name}={field.name}"


def _kind(field: FieldDescriptor) -> tuple[str, str]:
    """The type of a field's argument, and its default."""
    if entry := _entry(field):
        return f"Mapping[{', '.join(map(_element, entry))}]", "None"
    if field.is_repeated:
        return f"Iterable[{_element(field)}]", "()"
    if field.has_presence or field.enum_type is not None:
        return _element(field), "None"
    return _SCALARS.get(field.type, ("int", "0"))


def _element(field: FieldDescriptor) -> str:
    if field.message_type is not None:
        return _python_type(field.message_type)
    if field.enum_type is not None:
        return f"{_python_type(field.enum_type)}.ValueType"
    return _SCALARS.get(field.type, ("int", "0"))[0]


def _python_type(desc: Descriptor | EnumDescriptor) -> str:
    """`order_service_pb2.Order`."""
    package = desc.file.package
    return f"{_module(desc.file)}.{desc.full_name[len(package) + 1 :]}"


def _module(file: FileDescriptor) -> str:
    return f"{PurePosixPath(file.name).stem}_pb2"


def _imports(method: Method) -> Iterator[str]:
    """What the types of a method's arguments and reply come from."""
    used: list[Descriptor | EnumDescriptor] = [method.request]
    if method.response.full_name != _EMPTY:
        used.append(method.response)
    for field in method.request.fields:
        parts = _entry(field) or [field]
        used += [kind for part in parts for kind in (part.message_type, part.enum_type) if kind is not None]
    for desc in used:
        package = ".".join(PurePosixPath(desc.file.name).parent.parts)
        yield f"from {package} import {_module(desc.file)}"


def _entry(field: FieldDescriptor) -> list[FieldDescriptor]:
    """The key and the value of a map; nothing for other fields."""
    kind = field.message_type
    return list(kind.fields) if kind is not None and kind.GetOptions().map_entry else []
