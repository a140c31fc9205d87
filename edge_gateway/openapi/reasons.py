"""Error reasons: those of a descriptor set, and the error responses of each operation."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from string import Formatter
from typing import Any

from protobuf import DescEnum, Registry

from edge_gateway.errors import CODE_NAMES, error_info, http_status, invalid_argument
from edge_gateway.openapi.comments import Comments
from edge_gateway.openapi.constraints import Json
from edge_gateway.openapi.examples import word_for
from edge_gateway.routing.descriptors import option, services
from edge_gateway.routing.rules import Rule

_PREFIX = "ERROR_REASON_"
_OPTION = "shop.options.v1.error"


@dataclass(frozen=True, slots=True)
class Reason:
    """One value of an `ErrorReason`."""

    name: str
    package: str
    code: int
    status: int
    message: str
    meaning: str

    @property
    def domain(self) -> str:
        """Return the domain of its ErrorInfo."""
        parts = self.package.split(".")
        return f"{parts[1]}.{parts[0]}" if len(parts) > 1 else self.package

    @property
    def key(self) -> str:
        """Return the name of its example among the components."""
        return f"{self.domain}.{self.name}"

    def example(self) -> Json:
        """Return an example body with this reason."""
        names = [name for _, name, _, _ in Formatter().parse(self.message) if name]
        metadata = {name: word_for(name) for name in dict.fromkeys(names)}
        info = {**error_info(self.name), "domain": self.domain, "metadata": metadata}
        message = self.message.format_map(metadata)
        return {"summary": self.meaning, "value": {"code": self.code, "message": message, "details": [info]}}


_Applies = Callable[[Rule], bool]


def idempotency_of(rule: Rule) -> str:
    """Return the idempotency_level of a rule's method."""
    return getattr(rule.rpc.desc.idempotency, "name", "IDEMPOTENCY_UNKNOWN")  # a method without options has a number


def _asks_for(name: str) -> _Applies:
    return lambda rule: any(field.name == name for field in rule.rpc.input.fields)


def _demands(*access: str) -> _Applies:
    return lambda rule: rule.rpc.policy is not None and rule.rpc.policy.access in access


def _is_webhook(rule: Rule) -> bool:
    return rule.raw_request and _demands("PUBLIC")(rule)


#: The methods to which the chassis's own reasons apply; a reason not listed here applies to all.
_WHEN: dict[str, _Applies] = {
    "TOKEN_MISSING": _demands("USER", "ROLES"),
    "ROLE_MISSING": _demands("ROLES"),
    "CALLER_DENIED": lambda _: False,  # methods that do not name the edge have no route
    "IDEMPOTENCY_KEY_REUSED": _asks_for("request_id"),
    "OPERATION_IN_FLIGHT": _asks_for("request_id"),
    "WRITE_CONTENDED": lambda rule: idempotency_of(rule) != "NO_SIDE_EFFECTS",
    "PAGE_TOKEN_INVALID": _asks_for("page_token"),
    "RESUME_TOKEN_INVALID": _asks_for("resume_token"),
    "WEBHOOK_REJECTED": _is_webhook,
    "WEBHOOK_MALFORMED": _is_webhook,
    "RATE_LIMITED": lambda rule: rule.rpc.policy is not None and rule.rpc.policy.rate_limit is not None,
}


class Reasons:
    """All reasons of a descriptor set, and the responses built from them."""

    def __init__(self, registry: Registry, comments: Comments) -> None:
        self._all = list(_collect(registry, comments))
        serving = {service.file.proto.package for service in services(registry)}
        #: Reasons of a package without services apply to every service.
        self._common = [reason for reason in self._all if reason.package not in serving]
        self.responses: dict[str, Json] = {}
        self._names: dict[str, str] = {}

    def examples(self) -> dict[str, Json]:
        """Return an example body for each reason, by its component's name."""
        found = {reason.key: reason.example() for reason in self._all}
        found["edge.INVALID_ARGUMENT"] = {
            "summary": "The request is invalid.",
            "value": invalid_argument("lines: must be a list", [("lines", "must be a list")]).as_json(),
        }
        return found

    def of(self, rule: Rule) -> list[Reason]:
        """Return the reasons that a rule's method may return."""
        package = rule.rpc.desc.parent.file.proto.package
        own = [reason for reason in self._all if reason.package == package]
        shared = [it for it in self._common if it.package != package and _WHEN.get(it.name, _always)(rule)]
        return [*shared, *own]

    def responses_of(self, rule: Rule) -> dict[str, Json]:
        """Return the error responses of a rule, by HTTP status."""
        by_status: dict[int, list[Reason]] = {400: []}
        for reason in self.of(rule):
            by_status.setdefault(reason.status, []).append(reason)
        service = rule.rpc.desc.parent
        found: Json = {}
        for status, reasons in sorted(by_status.items()):
            own = any(reason.package == service.file.proto.package for reason in reasons)
            name = f"{service.name}.{status}" if own else str(status)
            found[str(status)] = self._shared(name, _response(status, reasons, rate_headers(rule)))
        return {**found, "default": self._shared("Failure", _FAILURE)}

    def _shared(self, name: str, response: Json) -> Json:
        """Add a response to the components, once; return a reference to it."""
        key = repr(response)
        if key not in self._names:
            alike = sum(other == name or other.startswith(f"{name}.") for other in self._names.values())
            self._names[key] = f"{name}.{alike + 1}" if alike else name
            self.responses[self._names[key]] = response
        return {"$ref": f"#/components/responses/{self._names[key]}"}


def _always(_: Rule) -> bool:
    return True


def _collect(registry: Registry, comments: Comments) -> Iterable[Reason]:
    if registry.extension(_OPTION) is None:
        return
    enums = [desc for desc in registry if isinstance(desc, DescEnum)]
    for enum in sorted(enums, key=lambda enum: enum.type_name):
        for value in enum.values:
            error = option(registry, value, _OPTION)
            if error is not None:
                yield _reason(enum, value, error, comments)


def _reason(enum: DescEnum, value: Any, error: Any, comments: Comments) -> Reason:
    code = int(error.code)
    return Reason(
        name=value.name.removeprefix(_PREFIX),
        package=enum.file.proto.package,
        code=code,
        status=error.http_status or http_status(code),
        message=error.message,
        meaning=comments.of(f"{enum.type_name}.{value.name}"),
    )


def rate_headers(rule: Rule) -> list[str]:
    """Return the headers that report the rate limit."""
    policy = rule.rpc.policy
    return ["RateLimit", "RateLimit-Policy"] if policy is not None and policy.rate_limit is not None else []


def header_ref(name: str) -> Json:
    """Return a reference to a header among the components."""
    return {"$ref": f"#/components/headers/{name}"}


def _response(status: int, reasons: list[Reason], of_limit: list[str]) -> Json:
    lines = [f"- `{reason.name}` ({CODE_NAMES[reason.code]}): {reason.meaning}" for reason in reasons]
    if status == 400:
        lines.insert(0, "- The request is invalid; `google.rpc.BadRequest` names the fields.")
    examples = {reason.name: {"$ref": f"#/components/examples/{reason.key}"} for reason in reasons}
    if status == 400:
        examples["INVALID_ARGUMENT"] = {"$ref": "#/components/examples/edge.INVALID_ARGUMENT"}
    response: Json = {"description": "\n".join(lines), "content": _content(examples)}
    headers = ["Retry-After", *of_limit] if status == 429 else ["WWW-Authenticate"] if status == 401 else []
    return {**response, "headers": {name: header_ref(name) for name in headers}} if headers else response


def _content(examples: Json) -> Json:
    plain: Json = {"schema": {"$ref": "#/components/schemas/Status"}}
    if examples:
        plain["examples"] = dict(sorted(examples.items()))
    return {
        "application/json": plain,
        "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}},
    }


_FAILURE: Json = {
    "description": "Any other failure: a body that is too large (413) or not JSON (415), a call that took too long "
    "(504), or a service that is not there (503) or failed (500).",
    "content": _content({}),
}

_DETAIL = "type.googleapis.com/google.rpc."

#: google.rpc.Status as clients receive it, and in the form of RFC 9457 for those that accept it.
SCHEMAS: dict[str, Json] = {
    "Status": {
        "type": "object",
        "description": "An error: google.rpc.Status. `ErrorInfo` among the details has the reason to act upon.",
        "properties": {
            "code": {
                "type": "integer",
                "description": "The number of the google.rpc.Code.",
                "minimum": 1,
                "maximum": 16,
            },
            "message": {"type": "string", "description": "For developers; not to be parsed, nor shown to users."},
            "details": {"type": "array", "items": {"$ref": "#/components/schemas/StatusDetail"}},
        },
        "required": ["code", "message", "details"],
    },
    "StatusDetail": {
        "type": "object",
        "description": "One detail; `@type` determines its other properties.",
        "properties": {
            "@type": {
                "type": "string",
                "examples": [_DETAIL + name for name in ("ErrorInfo", "BadRequest", "RetryInfo")],
            },
            "reason": {"type": "string", "description": "ErrorInfo: the reason, a constant such as `ORDER_NOT_FOUND`."},
            "domain": {"type": "string", "description": "ErrorInfo: the service that defines the reason."},
            "metadata": {
                "type": "object",
                "description": "ErrorInfo: the variables of the message.",
                "additionalProperties": {"type": "string"},
            },
            "fieldViolations": {
                "type": "array",
                "description": "BadRequest: the invalid fields.",
                "items": {
                    "type": "object",
                    "properties": {
                        "field": {"type": "string", "description": "The path, such as `lines[0].quantity`."},
                        "description": {"type": "string"},
                        "reason": {"type": "string"},
                    },
                },
            },
            "retryDelay": {"type": "string", "description": "RetryInfo: how long to wait, such as `1.5s`."},
        },
        "required": ["@type"],
        "additionalProperties": True,
    },
    "Problem": {
        "description": "The same as Status in the form of RFC 9457, for `Accept: application/problem+json`.",
        "allOf": [
            {"$ref": "#/components/schemas/Status"},
            {
                "type": "object",
                "properties": {
                    "type": {"type": "string", "examples": ["urn:error:order.shop:ORDER_NOT_FOUND"]},
                    "title": {"type": "string"},
                    "status": {"type": "integer"},
                    "detail": {"type": "string"},
                },
                "required": ["type", "title", "status", "detail"],
            },
        ],
    },
}

HEADERS: dict[str, Json] = {
    "ETag": {"description": "The version of the reply, for `If-None-Match`.", "schema": {"type": "string"}},
    "RateLimit": {
        "description": "The remaining quota: `r` calls in the next `t` seconds.",
        "schema": {"type": "string", "examples": ['"rpc";r=299;t=60']},
    },
    "RateLimit-Policy": {
        "description": "The limit: `q` calls in any `w` seconds.",
        "schema": {"type": "string", "examples": ['"rpc";q=300;w=60']},
    },
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}},
    "WWW-Authenticate": {
        "description": "`Bearer`, with an error if the token is invalid.",
        "schema": {"type": "string"},
    },
}
