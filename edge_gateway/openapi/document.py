"""The OpenAPI 3.1 document of all routes of a descriptor set."""

import re
from collections.abc import Iterable
from typing import Any

from protobuf import DescMessage, Registry

from edge_gateway.openapi import batch, reasons
from edge_gateway.openapi.comments import Comments
from edge_gateway.openapi.constraints import Json
from edge_gateway.openapi.links import Target, links_of
from edge_gateway.openapi.operations import Operation, Operations
from edge_gateway.openapi.schemas import Schemas
from edge_gateway.routing.field_types import field_element
from edge_gateway.routing.rules import Routes, Rule
from edge_gateway.settings import BATCH_PATH, Settings

_METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")

_ABOUT = """\
JSON over HTTP for gRPC services. Requests and replies are ProtoJSON: names in lowerCamelCase, 64-bit integers as \
text, enum values by name, times as RFC 3339.

**Errors** are a `Status` with the HTTP status that its code maps to. The `ErrorInfo` among its details has the \
`reason` to act upon; `BadRequest` names the invalid fields.

**Retries** are idempotent with the same `requestId`, or the same header `Idempotency-Key`.

**Versions**: replies with an `etag` also have the header `ETag`. `If-None-Match` makes the response to \
an unchanged version a 304; `If-Match` rejects a change of any other version.

**Partial replies**: `?fields=orderId,lines(sku,quantity)` on any operation that replies in JSON. `?prettyPrint=true` \
indents it, and `?alt=json;enum-encoding=int` writes numbers for enum values.

**Deadlines**: the header `Grpc-Timeout`, such as `500m` for 500 milliseconds, may shorten the method's own.
"""


def document(registry: Registry, routes: Routes, settings: Settings) -> Json:
    """Return the document of some routes; equal routes have equal documents."""
    comments = Comments(registry)
    schemas = Schemas(
        registry,
        comments,
        settings,
        requests=[rule.rpc.input for rule in routes.rules],
        replies=_replies(routes.rules),
    )
    why = reasons.Reasons(registry, comments)
    maker = Operations(registry, comments, schemas, why)
    operations = [maker.of(rule) for rule in routes.rules]
    _link(operations, schemas)
    paths: dict[str, Json] = {}
    for operation in operations:
        _place(paths.setdefault(operation.path, {}), operation)
    paths[BATCH_PATH] = batch.operation(_plain_read(routes.rules))
    return {
        "openapi": "3.1.0",
        "info": _info(routes.rules),
        "servers": [{"url": "/"}],
        "tags": _tags(routes.rules, comments),
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted({**schemas.components, **reasons.SCHEMAS, **batch.SCHEMAS}.items())),
            "responses": dict(sorted(why.responses.items())),
            "examples": dict(sorted(why.examples().items())),
            "headers": reasons.HEADERS,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "The access token of a signed-in user.",
                }
            },
        },
    }


def _replies(rules: Iterable[Rule]) -> list[DescMessage]:
    found: list[Any] = []
    for rule in rules:
        element = field_element(rule.response_field) if rule.response_field is not None else rule.rpc.output
        if not rule.raw_response and hasattr(element, "type_name"):
            found.append(element)
    return found


def _plain_read(rules: list[Rule]) -> str:
    """Return a public path without variables, if there is one."""
    plain = [rule for rule in rules if rule.method == "GET" and rule.rpc.is_unary and not rule.variables]
    public = [rule for rule in plain if rule.rpc.policy is not None and rule.rpc.policy.access == "PUBLIC"]
    return next((rule.template.text for rule in (*public, *plain)), "/")


def _place(item: Json, operation: Operation) -> None:
    """Add an operation under its method, or under each free one if its rule matches any method."""
    method = operation.rule.method.lower()
    if method == "*":
        for name in ("get", "put", "post", "delete", "patch"):
            item.setdefault(name, {**operation.document, "operationId": f"{operation.id}_{name}"})
    elif method in _METHODS:
        item[method] = operation.document
    else:  # OpenAPI has no custom methods
        item.setdefault("x-methods", {})[operation.rule.method] = operation.document


def _link(operations: list[Operation], schemas: Schemas) -> None:
    targets = [
        Target(operation.id, operation.rule, names)
        for operation in operations
        if operation.rule.rpc.is_unary
        and "x-additional-binding-of" not in operation.document
        and (names := _path_names(operation)) is not None
    ]
    for operation in operations:
        if links := links_of(operation.rule, targets, schemas):
            operation.document["responses"]["200"]["links"] = links


def _path_names(operation: Operation) -> dict[str, str] | None:
    """Return the names in the path by the fields that they set; None if several set one field."""
    names = [it["name"] for it in operation.document.get("parameters", ()) if it["in"] == "path"]
    if len(names) != len(operation.rule.variables) or any(it.multiple for it in operation.rule.template.variables):
        return None
    return {binding.key[-1]: name for binding, name in zip(operation.rule.variables, names, strict=True)}


def _info(rules: list[Rule]) -> Json:
    packages = sorted({rule.rpc.desc.parent.file.proto.package for rule in rules})
    versions = sorted({part for package in packages for part in package.split(".") if re.fullmatch(r"v\d\w*", part)})
    name = packages[0].split(".")[0] if packages else ""
    return {
        "title": f"{name.capitalize()} API" if name else "API",
        "version": versions[-1] if versions else "v1",
        "description": _ABOUT,
    }


def _tags(rules: list[Rule], comments: Comments) -> list[Json]:
    tags: dict[str, Json] = {}
    for rule in rules:
        service = rule.rpc.desc.parent
        tag = {"name": service.name, "description": comments.of(service.type_name), "x-service": service.type_name}
        tags.setdefault(service.name, {key: value for key, value in tag.items() if value})
    return [*tags.values(), batch.TAG]
