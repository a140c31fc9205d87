"""The checks that fail the build: the rules for .proto files that buf lint does not know."""

import keyword
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from string import Formatter

from google.protobuf.descriptor import FieldDescriptor
from google.rpc.code_pb2 import Code

from mesh.codegen.runtime.contract import ANY_WORKLOAD, EDGE
from mesh.codegen.schema import Event, Method, Place, Reason, Schema, Topic, domain_of, workload_of

# Proxies count these as failures of the host and eject it; a business error must not cause that.
_HOST_FAILURES = ("UNKNOWN", "INTERNAL", "DATA_LOSS", "UNIMPLEMENTED", "UNAVAILABLE", "DEADLINE_EXCEEDED")

# Field names that suggest a secret. A cursor is called a token too, but grants no access.
_SECRET = re.compile(
    r"(^|_)(password|passphrase|passwd|secrets?|credentials?|private_key|api_key|cvc|cvv|card|pan|iban)(_|$)"
    r"|(^|_)(tokens?|card_(number|token|holder))$"
)
_CURSOR = re.compile(r"(^|_)(page|resume|sync)_tokens?$")
_CARD_FACT = re.compile(r"(^|_)card_(brand|network|last4|last_four|last_digits|expiry|country|funding)(_|$)")


def problems(schema: Schema) -> list[str]:
    """Return every breach as `file:line: what: why`, ordered by file and line."""
    workloads = sorted({workload_of(method.service) for method in schema.methods()})
    declared = [topic.topic.name for topic in schema.topics()]
    used = {event.event.topic for event in schema.events() if event.event}
    found = [
        *_methods(schema),
        *((r.place, f"{r.enum}.{r.name}", why) for r in schema.reasons() for why in _reason(r)),
        *((e.place, e.message.full_name, why) for e in schema.events() for why in _event(e, declared)),
        *((t.place, t.topic.name, why) for t in schema.topics() for why in _topic(t, workloads, used)),
        *(
            (place, field.full_name, "looks like a secret: mark it (shop.options.v1.sensitive) = true")
            for field, sensitive, place in schema.fields()
            if not sensitive and _is_secret(field)
        ),
    ]
    return _listed(found)


def method_problems(schema: Schema) -> list[str]:
    """Return every breach of a method, as `problems` does."""
    return _listed(_methods(schema))


def _methods(schema: Schema) -> Iterator[tuple[Place, str, str]]:
    callers = [EDGE, ANY_WORKLOAD, *sorted({workload_of(method.service) for method in schema.methods()})]
    return ((m.place, f"{m.service}.{m.name}", why) for m in schema.methods() for why in _method(m, callers))


def _listed(found: Iterable[tuple[Place, str, str]]) -> list[str]:
    ordered = sorted(found, key=lambda problem: (problem[0].file, problem[0].line))
    return [f"{place}: {subject}: {why}" for place, subject, why in ordered]


def _method(method: Method, callers: Sequence[str]) -> Iterator[str]:
    if method.rule is None:
        yield "has no (shop.options.v1.rpc)"
        return
    yield from _access(method)
    if not method.rule.callers:
        yield "names no callers"
    for caller in method.rule.callers:
        if caller not in callers:
            yield f"names the unknown caller {caller!r}; known are {', '.join(callers)}"
    yield from _limits(method)
    yield from _outside(method)
    yield from _streams(method)
    if _mutates(method):
        yield from _repeats(method)


def _repeats(method: Method) -> Iterator[str]:
    request_id = method.request.fields_by_name.get("request_id")
    if request_id is None and not method.declares_idempotency:
        yield "changes something, but neither has a `string request_id` nor an idempotency_level"
    if request_id is not None and not _is_string(request_id):
        yield f"changes something, but the request_id of {method.request.name} is no string"


def _access(method: Method) -> Iterator[str]:
    access = enum_name(method.rule, "access")
    if access == "ACCESS_UNSPECIFIED":
        yield "does not say its access"
    elif access == "ACCESS_ROLES" and not method.rule.roles:
        yield "has ACCESS_ROLES without roles"
    elif access not in ("ACCESS_ROLES", "ACCESS_OWNER") and method.rule.roles:
        yield f"has roles, which {access} does not use"
    if method.rule.workloads and access != "ACCESS_ROLES":
        yield f"has workloads, which {access} does not use"
    if alien := sorted(set(method.rule.workloads) - (set(method.rule.callers) - {EDGE})):
        yield f"has workloads that are no callers within the mesh: {', '.join(alien)}"


def _limits(method: Method) -> Iterator[str]:
    rule = method.rule
    streams = method.client_streaming or method.server_streaming
    if not streams and not rule.HasField("timeout"):
        yield "is unary and has no timeout"
    if rule.HasField("timeout") and seconds(rule.timeout) <= 0:
        yield "has a timeout that is not positive"
    if rule.HasField("rate_limit") and (rule.rate_limit.requests < 1 or seconds(rule.rate_limit.per) <= 0):
        yield "has a rate limit whose `requests` or `per` is not positive"


def _outside(method: Method) -> Iterator[str]:
    rule, outside = method.rule, EDGE in method.rule.callers
    if outside and enum_name(rule, "access") == "ACCESS_WORKLOAD":
        yield f"has ACCESS_WORKLOAD, but admits calls from outside ({EDGE!r})"
    if method.http_verb and not outside:
        yield f"has a JSON route, but does not admit calls from outside ({EDGE!r})"
    if rule.HasField("rate_limit") and not outside:
        yield f"has a rate limit, which counts calls from outside, but does not admit them ({EDGE!r})"


def _streams(method: Method) -> Iterator[str]:
    if method.client_streaming:
        yield "streams from its client; the ingress passes a request on only when it is complete"
    if method.server_streaming and method.idempotency_level != "NO_SIDE_EFFECTS":
        yield "streams, and is resumed, but does not say NO_SIDE_EFFECTS"


def _mutates(method: Method) -> bool:
    if method.request.full_name == "google.api.HttpBody":  # the id of a webhook is in its headers
        return False
    return method.idempotency_level != "NO_SIDE_EFFECTS" and method.http_verb != "get"


def _reason(reason: Reason) -> Iterator[str]:
    if reason.error is None:
        yield "has no (shop.options.v1.error)"
        return
    code = Code.Name(reason.error.code)
    if code == "OK":
        yield "has no code"
    elif code in _HOST_FAILURES:
        yield f"has the code {code}, which a proxy counts as the host's failure"
    if reason.error.http_status and not 400 <= reason.error.http_status <= 499:
        yield "has an http_status outside 400 to 499"
    if not reason.error.message:
        yield "has no message"
    try:
        names = placeholders(reason.error.message)
    except ValueError as error:
        yield f"has a malformed message: {error}"
    else:
        yield from (f"has the placeholder {{{name}}}, which is no name" for name in names if not _is_name(name))


def _is_name(name: str) -> bool:
    return bool(re.fullmatch(r"[a-z][a-z0-9_]*", name)) and not keyword.iskeyword(name) and name != "self"


def _event(event: Event, declared: Sequence[str]) -> Iterator[str]:
    if event.event is None:
        if not event.embedded:
            yield "stands in an events file, but is neither an event nor part of one"
        return
    key = event.event.key
    if not _is_string(event.message.fields_by_name.get(key)):
        yield f"has no field `string {key}` to be its key" if key else "names no key"
    domain = domain_of(event.message.file.package)
    if not re.fullmatch(rf"shop\.{domain}\.v1\.[A-Z][A-Za-z0-9]*", event.event.topic):
        yield f"has the topic {event.event.topic!r}, which is not `shop.{domain}.v1.<Aggregate>`"
    elif declared.count(event.event.topic) != 1:
        yield f"has the topic {event.event.topic!r}, which is not declared once by (shop.options.v1.topic)"


def _topic(topic: Topic, workloads: Sequence[str], used: Collection[str]) -> Iterator[str]:
    rule = topic.topic
    if rule.name.rpartition(".")[0] != topic.package:
        yield f"is declared in the package {topic.package}, which does not publish it"
    if rule.name not in used:
        yield "is a topic without events"
    for consumer in rule.consumers:
        if consumer not in workloads:
            yield f"names the unknown consumer {consumer!r}; known are {', '.join(workloads)}"
    if rule.partitions < 1 or seconds(rule.retention) <= 0:
        yield "is a topic whose `partitions` or `retention` is not positive"


def _is_secret(field: FieldDescriptor) -> bool:
    texts = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
    harmless = _CURSOR.search(field.name) or _CARD_FACT.search(field.name)
    return field.type in texts and not harmless and bool(_SECRET.search(field.name))


def _is_string(field: FieldDescriptor | None) -> bool:
    return field is not None and field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated


def enum_name(message: object, field: str) -> str:
    """Return the name of the enum value in the field, or its number when it has none."""
    number = getattr(message, field)
    enum = message.DESCRIPTOR.fields_by_name[field].enum_type  # type: ignore[attr-defined]
    value = enum.values_by_number.get(number)
    return str(value.name) if value else str(number)


def seconds(duration: object) -> float:
    """Return the seconds of a google.protobuf.Duration; its class may come from any pool."""
    return float(duration.seconds + duration.nanos / 1e9)  # type: ignore[attr-defined]


def placeholders(template: str) -> list[str]:
    """Return the names in braces, each once, in order. Raises ValueError on a stray brace or a format."""
    names: list[str] = []
    for _, name, form, conversion in Formatter().parse(template):
        if form or conversion:
            raise ValueError(f"{{{name}}} has a format of its own")
        if name is not None and name not in names:
            names.append(name)
    return names
