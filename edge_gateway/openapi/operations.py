"""One operation for each binding of a method."""

from dataclasses import dataclass

from protobuf import DescMessage, Registry

from edge_gateway.openapi.comments import Comments, summary_of
from edge_gateway.openapi.constraints import Json
from edge_gateway.openapi.examples import Examples
from edge_gateway.openapi.paths import Paths
from edge_gateway.openapi.queries import Queries
from edge_gateway.openapi.reasons import Reasons, header_ref, idempotency_of, rate_headers
from edge_gateway.openapi.schemas import Schemas, View
from edge_gateway.routing.descriptors import Policy, option
from edge_gateway.routing.field_types import field_element
from edge_gateway.routing.rules import Rule

_ANY_TYPE: Json = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
_READS = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Operation:
    """A rule's operation, and its place in the document."""

    rule: Rule
    path: str
    document: Json

    @property
    def id(self) -> str:
        """Return the operationId."""
        return str(self.document["operationId"])


class Operations:
    """Builds the operations of rules."""

    def __init__(self, registry: Registry, comments: Comments, schemas: Schemas, reasons: Reasons) -> None:
        self._registry = registry
        self._comments = comments
        self._schemas = schemas
        self._reasons = reasons
        self._paths = Paths(schemas)
        self._queries = Queries(schemas)
        #: The first operation of each method, and the method of each name.
        self._main: dict[str, str] = {}
        self._methods: dict[str, str] = {}
        self._ids: set[str] = set()

    def of(self, rule: Rule) -> Operation:
        """Build the operation of a rule."""
        path, in_path = self._paths.of(rule)
        summary, rest = summary_of(self._comments.of(f"{rule.rpc.desc.parent.type_name}.{rule.rpc.desc.name}"))
        made: Json = {"operationId": self._id(rule), "tags": [rule.rpc.desc.parent.name]}
        made["summary"] = summary or rule.rpc.desc.name
        if text := "\n\n".join(filter(None, [rest, *_access_notes(rule, self._roles(rule))])):
            made["description"] = text
        if rule.rpc.desc.deprecated:
            made["deprecated"] = True
        if parameters := [*in_path, *self._queries.of(rule), *self._headers(rule)]:
            made["parameters"] = [self._with_example(parameter) for parameter in parameters]
        if rule.has_body:
            made["requestBody"] = self._body(rule)
        made["responses"] = {"200": self._reply(rule), **_not_modified(rule), **self._reasons.responses_of(rule)}
        made.update(self._marks(rule, made["operationId"]))
        return Operation(rule, path, made)

    def _id(self, rule: Rule) -> str:
        base = f"{rule.rpc.desc.parent.name}_{rule.rpc.desc.name}"
        if self._methods.setdefault(base, rule.rpc.path) != rule.rpc.path:  # two services of one name
            base = f"{rule.rpc.desc.parent.type_name.replace('.', '_')}_{rule.rpc.desc.name}"
        name, count = base, 1
        while name in self._ids:
            count += 1
            name = f"{base}_{count}"
        self._ids.add(name)
        return name

    def _roles(self, rule: Rule) -> list[str]:
        rpc_option = option(self._registry, rule.rpc.desc, "shop.options.v1.rpc")
        return list(rpc_option.roles) if rpc_option is not None else []

    def _with_example(self, parameter: Json) -> Json:
        if parameter["in"] != "path" and not parameter.get("required"):
            return parameter
        value = Examples(self._schemas.components).of(parameter["schema"], parameter["name"].rpartition(".")[2])
        return {**parameter, "example": value}

    def _headers(self, rule: Rule) -> list[Json]:
        found: list[Json] = []
        if _is_tagged(rule):
            text = "The `ETag` of the reply that the client has; the response is 304 while it is current."
            found.append({"name": "If-None-Match", "in": "header", "description": text, "schema": {"type": "string"}})
        if rule.resume_token is not None:
            schema = self._schemas.field(rule.resume_token, View.INPUT)
            name = self._schemas.name_of(rule.resume_token)
            text = f"The id of the last event seen; the same as `{name}`."
            schema.pop("description", None)
            found.append({"name": "Last-Event-ID", "in": "header", "description": text, "schema": schema})
        return found

    # --- bodies --------------------------------------------------------------------------------------------

    def _body(self, rule: Rule) -> Json:
        if rule.raw_request:
            return {"content": _ANY_TYPE}
        message = rule.rpc.input
        if rule.body_field is not None:
            below = {binding.key[1] for binding in rule.variables if binding.key[0] == rule.body_field.name}
            partial = rule.mask is not None or any(field.name == "update_mask" for field in message.fields)
            schema = self._schemas.body_field(message, rule.body_field, below, partial=partial)
            needed = self._schemas.must_be_present(rule.body_field, View.INPUT)
            in_path = [binding.key for binding in rule.variables]
            text = " ".join([schema.pop("description", ""), *self._schemas.notes(message, in_path)]).strip()
        else:
            bound = {binding.key[0] for binding in rule.variables if len(binding.key) == 1}
            name = rule.rpc.desc.name + "Body"
            schema = self._schemas.body(message, bound, name)
            needed = bool(Examples(self._schemas.components).flatten(schema).get("required"))
            text = ""
        examples = Examples(self._schemas.components)
        content: Json = {"application/json": {"schema": schema, "example": examples.of(schema)}}
        if rule.rpc.client_streaming:
            content = {"application/x-ndjson": {"schema": schema}}
            text = "A sequence of objects, each of which is a message of the stream."
        body: Json = {"description": text} if text else {}
        return {**body, **({"required": True} if needed else {}), "content": content}

    def _reply(self, rule: Rule) -> Json:
        output = rule.rpc.output
        message = output if rule.response_field is None else field_element(rule.response_field)
        text = summary_of(self._comments.of(message.type_name))[0] if isinstance(message, DescMessage) else ""
        nothing = rule.response_field is None and output.type_name == "google.protobuf.Empty"
        reply: Json = {"description": f"{text or ('Done' if nothing else 'The reply')}."}
        if headers := [*(["ETag"] if _is_tagged(rule) else []), *rate_headers(rule)]:
            reply["headers"] = {name: header_ref(name) for name in headers}
        if rule.raw_response:
            return {**reply, "content": _ANY_TYPE}
        field = rule.response_field
        schema = self._schemas.field(field, View.REPLY) if field else self._schemas.message(output, View.REPLY)
        if rule.rpc.server_streaming:
            return {**reply, "content": _streamed(schema)}
        example = Examples(self._schemas.components).of(schema)
        return {**reply, "content": {"application/json": {"schema": schema, "example": example}}}

    # --- extensions ----------------------------------------------------------------------------------------

    def _marks(self, rule: Rule, operation_id: str) -> Json:
        rpc, policy = rule.rpc, rule.rpc.policy
        marks: Json = {}
        if policy is not None:
            marks["security"] = [] if policy.access == "PUBLIC" else [{"bearer": []}]
            marks["x-access"] = policy.access.lower()
            if roles := self._roles(rule):
                marks["x-roles"] = roles
            if policy.timeout is not None:
                marks["x-timeout-seconds"] = policy.timeout
            if policy.rate_limit is not None:
                limit = policy.rate_limit
                marks["x-rate-limit"] = {"requests": limit.requests, "seconds": limit.per}
        marks["x-grpc-method"] = rpc.path
        marks["x-idempotency-level"] = idempotency_of(rule)
        if rule.request_id is not None:
            marks["x-idempotency-key"] = self._schemas.name_of(rule.request_id)
        if rule.etag_in is not None:
            marks["x-if-match"] = ".".join(map(self._schemas.name_of, (*rule.etag_in.parents, rule.etag_in.field)))
        if not rpc.is_unary:
            marks["x-streaming"] = rpc.desc.method_kind
        main = self._main.setdefault(rpc.path, operation_id)
        if main != operation_id:
            marks["x-additional-binding-of"] = main
        return marks


def _access_notes(rule: Rule, roles: list[str]) -> list[str]:
    """Return what a client needs to know besides the comment."""
    policy = rule.rpc.policy
    return [*_about_access(policy, roles), *_about_headers(rule), *_about_streams(rule)]


def _about_access(policy: Policy | None, roles: list[str]) -> list[str]:
    if policy is None:
        return []
    notes = []
    if roles:
        named = " or ".join(f"`{role}`" for role in roles)
        owner = "the owner, and for " if policy is not None and policy.access == "OWNER" else ""
        notes.append(f"For {owner}users with the role {named}.")
    elif policy.access == "OWNER":
        notes.append("For the owner.")
    elif policy.access == "USER":
        notes.append("For signed-in users.")
    if (limit := policy.rate_limit) is not None:
        notes.append(f"At most {limit.requests} calls of one client in {limit.per:g} seconds.")
    return notes


def _about_headers(rule: Rule) -> list[str]:
    if rule.etag_in is None or rule.method in _READS:
        return []
    return [f"The header `If-Match` may replace `{rule.etag_in.name}`."]


def _about_streams(rule: Rule) -> list[str]:
    if rule.rpc.is_unary or rule.raw_response:
        return []
    ways = ["WebSocket (one JSON message a frame)"]
    if rule.rpc.server_streaming:
        ways = ["NDJSON", "server-sent events (`Accept: text/event-stream`)", *ways]
    resumed = " A stream that broke goes on with `Last-Event-ID`." if rule.resume_token is not None else ""
    return [f"A stream: {', '.join(ways[:-1])}{' or ' if ways[:-1] else ''}{ways[-1]}.{resumed}"]


def _streamed(schema: Json) -> Json:
    line: Json = {
        "type": "object",
        "properties": {"result": schema, "error": {"$ref": "#/components/schemas/Status"}},
        "description": "One line of the stream; `error` is the last.",
    }
    events = "Each event's data is a message; `event: error` holds a Status and `event: end` nothing."
    return {
        "application/x-ndjson": {"schema": line},
        "text/event-stream": {"schema": {"type": "string", "description": events}},
    }


def _is_tagged(rule: Rule) -> bool:
    """Return whether replies have an ETag for conditional requests."""
    policy = rule.rpc.policy
    public = policy is not None and policy.access == "PUBLIC" and not rule.rpc.server_streaming
    return rule.method in _READS and (rule.etag_out is not None or public)


def _not_modified(rule: Rule) -> Json:
    return {"304": {"description": "The client has this reply already."}} if _is_tagged(rule) else {}
