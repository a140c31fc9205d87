"""Compiles the google.api.http rules of a registry, so that a request needs no descriptor lookups."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from protobuf import DescField, DescMessage, DescMethod, DescService, Message, Registry

from edge_gateway.routing.descriptors import Policy, option, policy_of, services
from edge_gateway.routing.field_binding import BindingError, FieldBinding, variable_binding
from edge_gateway.routing.field_types import field_element
from edge_gateway.routing.query_binding import QueryBinder
from edge_gateway.routing.router import DuplicateRouteError, Router
from edge_gateway.routing.template import Template, TemplateError, parse_template
from edge_gateway.routing.text_values import FIELD_MASK

HTTP_BODY = "google.api.HttpBody"
_VERBS = ("get", "put", "post", "delete", "patch")


@dataclass(frozen=True, slots=True)
class Rpc:
    """A method of the back end."""

    #: `/pkg.Service/Method`, as gRPC writes it.
    path: str
    input: DescMessage
    output: DescMessage
    client_streaming: bool
    server_streaming: bool
    policy: Policy | None
    desc: DescMethod
    #: `pkg.Service`
    service: str
    is_unary: bool


@dataclass(frozen=True, slots=True)
class Rule:
    """One binding of a method to an HTTP method and a template."""

    rpc: Rpc
    method: str
    template: Template
    variables: tuple[FieldBinding, ...]
    query: QueryBinder
    #: Whether the body is the whole request; else it is `body_field`, if the rule has one.
    body_whole: bool
    body_field: DescField | None
    #: Whether the request itself or its body field is an HttpBody that takes the raw body.
    raw_request: bool
    response_field: DescField | None
    raw_response: bool
    #: The FieldMask that a PATCH derives from its body.
    mask: DescField | None
    request_id: DescField | None
    resume_token: DescField | None
    resume_token_out: DescField | None
    #: The etag field that If-Match sets.
    etag_in: FieldBinding | None
    etag_out: DescField | None
    has_body: bool
    request_type: type[Message]
    reply_type: type[Message]


@dataclass(slots=True)
class Routes:
    """All rules, the problems found, and the methods without a route."""

    router: Router[Rule]
    rules: list[Rule] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unrouted: list[str] = field(default_factory=list)


def compile_routes(registry: Registry, *, caller: str = "edge", prefix: str = "", unbound: bool = False) -> Routes:
    """Compile every routable method; collect problems rather than raise the first."""
    routes = Routes(Router(prefix=prefix))
    for service in services(registry):
        for method in service.methods:
            rpc = _rpc(registry, service, method)
            http = option(registry, method, "google.api.http")
            if rpc.policy is not None and caller not in rpc.policy.callers:
                routes.unrouted.append(f"{_origin(rpc)}: its callers do not name {caller}")
            elif rpc.policy is None and http is not None and _declares_policies(registry, service):
                routes.problems.append(f"{_origin(rpc)}: has a route but no (shop.options.v1.rpc)")
            elif http is None and not unbound:
                routes.unrouted.append(f"{_origin(rpc)}: has no google.api.http rule")
            else:
                _compile_method(routes, rpc, http)
    return routes


def _declares_policies(registry: Registry, service: DescService) -> bool:
    """Return whether any method has a policy; services of third parties have none."""
    return any(policy_of(registry, method) is not None for method in service.methods)


def _compile_method(routes: Routes, rpc: Rpc, http: Any) -> None:
    if http is None:
        bindings = [("POST", rpc.path, "*", "")]
    else:
        bindings = list(_bindings(http))
        if any(inner.additional_bindings for inner in http.additional_bindings):
            routes.problems.append(f"{_origin(rpc)}: additional_bindings are nested")
    for method, path, body, response_body in bindings:
        try:
            rule = _rule(rpc, method, path, body, response_body)
            routes.router.add(method, rule.template, rule)
            routes.rules.append(rule)
        except (TemplateError, BindingError, DuplicateRouteError) as error:
            routes.problems.append(f"{_origin(rpc)}: {error}")


def _rpc(registry: Registry, service: DescService, method: DescMethod) -> Rpc:
    kind = method.method_kind
    policy = policy_of(registry, method)
    return Rpc(
        path=f"/{service.type_name}/{method.name}",
        input=method.input,
        output=method.output,
        client_streaming=kind in ("client_streaming", "bidi_streaming"),
        server_streaming=kind in ("server_streaming", "bidi_streaming"),
        policy=policy,
        desc=method,
        service=service.type_name,
        is_unary=kind == "unary",
    )


def _origin(rpc: Rpc) -> str:
    return f"{rpc.desc.parent.file.name}: {rpc.path[1:].replace('/', '.')}"


def _bindings(http: Any) -> Iterator[tuple[str, str, str, str]]:
    for rule in (http, *http.additional_bindings):
        pattern = rule.pattern
        if pattern is None:
            yield "", "", rule.body, rule.response_body
        elif pattern.field == "custom":
            yield pattern.value.kind, pattern.value.path, rule.body, rule.response_body
        else:
            yield pattern.field.upper(), pattern.value, rule.body, rule.response_body


def _rule(rpc: Rpc, method: str, path: str, body: str, response_body: str) -> Rule:
    if not method:
        raise BindingError("a rule names neither a method nor a path")
    template = parse_template(path)
    variables = tuple(variable_binding(rpc.input, variable.field_path) for variable in template.variables)
    whole = body == "*"
    body_field = _body_field(rpc, body, variables)
    response_field = _named_field(rpc.output, response_body, "response_body") if response_body else None
    reply_type = field_element(response_field) if response_field else rpc.output
    takes_raw = rpc.input if whole else field_element(body_field) if body_field else None
    return Rule(
        rpc=rpc,
        method=method,
        template=template,
        variables=variables,
        query=QueryBinder(rpc.input, variables=variables, body=body_field, closed=whole),
        body_whole=whole,
        body_field=body_field,
        raw_request=_is_http_body(takes_raw) and not (body_field and _is_repeated(body_field)),
        response_field=response_field,
        raw_response=_is_http_body(reply_type) and not (response_field and _is_repeated(response_field)),
        mask=_mask(rpc.input) if method == "PATCH" and body_field is not None else None,
        request_id=_string(rpc.input, "request_id"),
        resume_token=_string(rpc.input, "resume_token") if rpc.server_streaming else None,
        resume_token_out=_string(rpc.output, "resume_token") if rpc.server_streaming else None,
        etag_in=_etag_in(rpc.input, body_field),
        etag_out=_string(rpc.output, "etag") if rpc.is_unary and response_field is None else None,
        has_body=whole or body_field is not None,
        request_type=rpc.input.type,
        reply_type=rpc.output.type,
    )


def _body_field(rpc: Rpc, body: str, variables: tuple[FieldBinding, ...]) -> DescField | None:
    if body in ("", "*"):
        return None
    found = _named_field(rpc.input, body, "body")
    if any(binding.key == (found.name,) for binding in variables):
        raise BindingError(f"the field {body} is both a path variable and the body")
    return found


def _named_field(message: DescMessage, name: str, role: str) -> DescField:
    for found in message.fields:
        if found.name == name:
            return found
    raise BindingError(f"{role} {name!r}: {message.type_name} has no such field")


def _string(message: DescMessage, name: str) -> DescField | None:
    """Return the singular string field of this name, or None."""
    for found in message.fields:
        if found.name == name and FieldBinding((found,)).is_text:
            return found
    return None


def _mask(message: DescMessage) -> DescField | None:
    masks = [found for found in message.fields if getattr(field_element(found), "type_name", "") == FIELD_MASK]
    return masks[0] if len(masks) == 1 and not _is_repeated(masks[0]) else None


def _etag_in(message: DescMessage, body_field: DescField | None) -> FieldBinding | None:
    direct = _string(message, "etag")
    if direct is not None:
        return FieldBinding((direct,))
    inner = field_element(body_field) if body_field and not _is_repeated(body_field) else None
    nested = _string(inner, "etag") if isinstance(inner, DescMessage) else None
    return FieldBinding((body_field, nested)) if body_field is not None and nested is not None else None


def _is_http_body(element: Any) -> bool:
    return isinstance(element, DescMessage) and element.type_name == HTTP_BODY


def _is_repeated(found: DescField) -> bool:
    binding = FieldBinding((found,))
    return binding.is_list or binding.is_map
