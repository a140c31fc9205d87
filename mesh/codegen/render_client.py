"""Renders the Python client: a class for each service, and one that holds them all."""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import PurePosixPath

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor

from mesh.codegen.render_python import HEAD, docstring, source
from mesh.codegen.runtime.contract import EDGE
from mesh.codegen.schema import Method, Schema

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
    """Return every module by its path below gen/."""
    services: dict[str, list[Method]] = defaultdict(list)
    for method in schema.methods():
        if _is_for_clients(method):
            services[method.service].append(method)
    modules = {f"shop/{name}.py": source(name) for name in ("channel", "connection")}
    modules["shop/client.py"] = _client(services)
    for service, methods in services.items():
        modules[f"{_module_name(service).replace('.', '/')}.py"] = _service(schema, service, methods)
    return {path: HEAD + text for path, text in modules.items()}


def _is_for_clients(method: Method) -> bool:
    """Return whether the ingress routes the method and it is no webhook."""
    return method.rule is not None and EDGE in method.rule.callers and method.request.full_name != _RAW


# --- all services in one ------------------------------------------------------------------------------------

_CLIENT = '''"""The shop for Python programs, over gRPC. Needs nothing but this package, grpcio and protobuf.

    async with ShopClient("localhost:8080") as shop:
        tokens = await shop.auth.login(email=..., password=...)
        shop.token = tokens.access_token
        order = await shop.orders.create_order(lines=[...], currency_code="EUR", ...)
        async for change in shop.orders.watch_order(order_id=order.order_id):
            ...
"""

from functools import cached_property

from shop.connection import Connection
%(imports)s


class ShopClient(Connection):
    """The services behind one address, each as an attribute."""
%(attributes)s'''

_ATTRIBUTE = """
    @cached_property
    def {name}(self) -> {kind}:
        return {kind}(self.channel)
"""


def _client(services: dict[str, list[Method]]) -> str:
    kinds = {service: _class_name(service) for service in services}
    imports = sorted(f"from {_module_name(service)} import {kind}" for service, kind in kinds.items())
    attributes = (
        _ATTRIBUTE.format(name=_attribute(service, services[service]), kind=kind) for service, kind in kinds.items()
    )
    return _CLIENT % {"imports": "\n".join(imports), "attributes": "".join(attributes)}


def _attribute(service: str, methods: list[Method]) -> str:
    """Return `orders` where the service has a resource of its own name, else the name itself: `catalog`."""
    kind = _resource(service)
    name, plural = _snake(kind), _plural(kind)
    names = {method.name for method in methods}
    return _snake(plural) if {f"Get{kind}", f"List{plural}"} & names else name


def _plural(name: str) -> str:
    if re.search("[^aeiou]y$", name):
        return f"{name[:-1]}ies"
    return f"{name}es" if name.endswith(("s", "x", "ch", "sh")) else f"{name}s"


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _resource(service: str) -> str:
    """Return what the service is about: `Order` for `shop.order.v1.OrderService`."""
    return service.rpartition(".")[2].removesuffix("Service")


def _module_name(service: str) -> str:
    return f"{service.rpartition('.')[0]}.{_snake(_resource(service))}_client"


def _class_name(service: str) -> str:
    return f"{_resource(service)}Client"


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
    # Required arguments first, for readers; all are keywords.
    arguments.sort(key=lambda argument: "=" in argument)
    request = f"{_python_type(method.request)}({', '.join(map(_passed, fields))})"
    name = _snake(method.name)
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
    """Return the type of a field's argument, and its default."""
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
    """Return `order_service_pb2.Order`."""
    package = desc.file.package
    return f"{_module(desc.file)}.{desc.full_name[len(package) + 1 :]}"


def _module(file: FileDescriptor) -> str:
    return f"{PurePosixPath(file.name).stem}_pb2"


def _imports(method: Method) -> Iterator[str]:
    """Yield the imports of the types of a method's arguments and reply."""
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
    """Return the key and the value of a map field; an empty list for any other."""
    kind = field.message_type
    return list(kind.fields) if kind is not None and kind.GetOptions().map_entry else []
