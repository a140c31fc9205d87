"""Messages and enums as components: the JSON that the codec writes, and the JSON that the binder accepts.

A message has up to three components. `Order` is what replies hold: every field that is always written is required.
`OrderInput` is what requests hold: its rules are constraints, and nothing unknown is let in. `OrderPatch` is an input
of which parts may be left out. A message that no reply holds has its plain name as an input.
"""

from collections.abc import Collection, Iterable
from enum import Enum
from typing import Any

from protobuf import (
    DescEnum,
    DescField,
    DescFieldValueList,
    DescFieldValueMap,
    DescFieldValueMessage,
    DescMessage,
    Registry,
)

from edge_gateway.openapi.cel import demands
from edge_gateway.openapi.comments import Comments
from edge_gateway.openapi.constraints import (
    Constraint,
    Json,
    add_expressions,
    constraint_of,
    rules_of,
    sentence,
)
from edge_gateway.openapi.names import reachable, short_names
from edge_gateway.openapi.overlay import Overlay, rejects_empty
from edge_gateway.openapi.scalars import key_schema, scalar_schema
from edge_gateway.openapi.wellknown import well_known
from edge_gateway.routing.descriptors import option
from edge_gateway.routing.field_types import field_element
from edge_gateway.settings import Settings


class View(Enum):
    """The use of a schema; the value is the suffix of the component's name."""

    REPLY = ""
    INPUT = "Input"
    #: A body with a field mask; the messages in it are replaced as a whole, and so are inputs.
    PATCH = "Patch"


class Schemas:
    """Builds components on demand."""

    def __init__(
        self,
        registry: Registry,
        comments: Comments,
        settings: Settings,
        *,
        requests: Iterable[DescMessage],
        replies: Iterable[DescMessage],
    ) -> None:
        self._registry = registry
        self._comments = comments
        self._settings = settings
        self.components: dict[str, Json] = {}
        self._keys: dict[str, str] = {}
        self._in_replies = reachable(replies)
        self._short = short_names(reachable(requests) | self._in_replies)

    def name_of(self, field: DescField) -> str:
        """Return the name of a field in JSON."""
        return field.name if self._settings.proto_names else field.json_name

    def message(self, message: DescMessage, view: View) -> Json:
        """Return the schema of a message: a reference to its component, with the rules that depend on its use."""
        known = well_known(message)
        if known is not None:
            return known
        base = self._short[message.type_name]
        if message.type_name in self._in_replies:
            base += view.value
        return self._component(base, f"{message.type_name} {view}", message, view, ())

    def body(self, message: DescMessage, bound: Collection[str], name: str) -> Json:
        """Return the schema of a request as a body, without the fields that the path sets."""
        if not bound or well_known(message) is not None:
            return self.message(message, View.INPUT)
        return self._component(name, f"{message.type_name} {sorted(bound)}", message, View.INPUT, bound)

    def body_field(self, message: DescMessage, field: DescField, bound: Collection[str], *, partial: bool) -> Json:
        """Return the schema of one field of a request as a body, without the fields below it that the path sets."""
        element = field_element(field)
        is_message = isinstance(field.value, DescFieldValueMessage) and well_known(element) is None
        if is_message and (partial or bound):
            view = View.PATCH if partial else View.INPUT
            name = self._short[element.type_name] + ("Patch" if partial else "Body")
            schema = self._component(name, f"{element.type_name} {view} {sorted(bound)}", element, view, bound)
            schema["description"] = self.describe(field)
        else:
            schema = self.field(field, View.INPUT)
        return self._laid_over(schema, self.rules(message).children.get(field.name, Overlay()).without(bound))

    def notes(self, message: DescMessage, bound: Collection[tuple[str, ...]] = ()) -> list[str]:
        """Return a message's own rules as sentences, except those of fields that the path sets."""
        found: list[str] = []
        for rule in rules_of(self._registry, message, "buf.validate.message").get("cel", ()):
            paths = {demand.path for demand in demands(rule.get("expression", ""))}
            if rule.get("message") and not (paths and paths <= set(bound)):
                found.append(sentence(rule["message"]))
        return found

    def field(self, field: DescField, view: View) -> Json:
        """Return the schema of a field, with its description and its constraints."""
        element = field_element(field)
        behaviors = self.behaviors(field)
        checked = view is not View.REPLY and "OUTPUT_ONLY" not in behaviors
        found = constraint_of(self._registry, field, element) if checked else Constraint()
        schema = self._shape(field, element, view, found)
        if checked:
            schema = self._laid_over(schema, self.field_rules(field))
        schema.update(self._marks(field, behaviors))
        text = self.describe(field, found.notes if checked else [])
        return {**schema, "description": text} if text else schema

    def describe(self, field: DescField, notes: Iterable[str] = ()) -> str:
        """Return a field's comment, with notes."""
        parts = [self._comments.of(f"{field.parent.type_name}.{field.name}"), *notes]
        if field.name == "request_id" and field.parent.type_name not in self._in_replies:
            parts.append("The header `Idempotency-Key` may replace it.")
        return " ".join(filter(None, parts))

    def must_be_present(self, field: DescField, view: View) -> bool:
        """Return whether a field is required."""
        if view is View.REPLY:
            return self._settings.emit_defaults and field.presence.name == "IMPLICIT"
        behaviors = self.behaviors(field)
        if "OUTPUT_ONLY" in behaviors:
            return False
        found = constraint_of(self._registry, field, field_element(field))
        if found.required or (view is View.INPUT and "REQUIRED" in behaviors):
            return True
        return field.presence.name == "IMPLICIT" and not found.lenient and rejects_empty(found.keywords, field)

    def behaviors(self, field: DescField) -> set[str]:
        """Return the google.api.field_behavior of a field."""
        return {behavior.name for behavior in option(self._registry, field, "google.api.field_behavior") or ()}

    def element(self, element: Any, view: View) -> Json:
        """Return the schema of a single value."""
        if isinstance(element, DescMessage):
            return self.message(element, View.INPUT if view is View.PATCH else view)
        if isinstance(element, DescEnum):
            return self._enum(element, view)
        return scalar_schema(element, read=view is View.REPLY)

    # --- how they are made ---------------------------------------------------------------------------------

    def _component(self, name: str, key: str, message: DescMessage, view: View, without: Collection[str]) -> Json:
        while self._keys.get(name, key) != key:
            name += "_"
        if name not in self._keys:
            self._keys[name] = key  # before its fields are read: a message may hold itself
            self.components[name] = self._object(message, view, without)
        return {"$ref": f"#/components/schemas/{name}"}

    def _object(self, message: DescMessage, view: View, without: Collection[str]) -> Json:
        hidden = "INPUT_ONLY" if view is View.REPLY else None
        fields = [it for it in message.fields if it.name not in without and hidden not in self.behaviors(it)]
        patched = view is View.PATCH
        made: Json = {"type": "object"}
        notes = self.notes(message) if view is not View.REPLY else []
        notes += [f"Holds at most one of {_listed(names)}." for names in self._oneofs(message)]
        text = "\n\n".join([*filter(None, [self._comments.of(message.type_name)]), *notes])
        if text:
            made["description"] = text
        made["properties"] = {self.name_of(it): self.field(it, view) for it in fields}
        required = [self.name_of(it) for it in fields if self.must_be_present(it, view)]
        if required:
            made["required"] = required
        if view is not View.REPLY:
            if not self._settings.ignore_unknown:
                made["additionalProperties"] = False
            demanded = self.rules(message).without(without).schema(proto_names=self._settings.proto_names)
            if demanded and not patched:
                made["allOf"] = [demanded]
        return made

    def _oneofs(self, message: DescMessage) -> list[list[str]]:
        return [
            [self.name_of(it) for it in oneof.fields] for oneof in message.oneofs if not is_optional(oneof.fields[0])
        ]

    def rules(self, message: DescMessage) -> Overlay:
        """Return the overlay of a message's own CEL rules."""
        found = Constraint()
        add_expressions(found, rules_of(self._registry, message, "buf.validate.message"))
        return Overlay.of(message, found.expressions)

    def field_rules(self, field: DescField) -> Overlay:
        """Return the constraints of a field's own CEL rules on its message."""
        element = field_element(field)
        found = constraint_of(self._registry, field, element)
        return Overlay.of(element, found.expressions) if isinstance(element, DescMessage) else Overlay()

    def _laid_over(self, schema: Json, demanded: Overlay) -> Json:
        over = demanded.schema(proto_names=self._settings.proto_names)
        if not over:
            return schema
        annotations: Json = {key: schema.pop(key) for key in ("description", "readOnly", "writeOnly") if key in schema}
        return {"allOf": [schema, over], **annotations}

    def _shape(self, field: DescField, element: Any, view: View, found: Constraint) -> Json:
        one = self.element(element, view)
        if isinstance(field.value, DescFieldValueList):
            return {"type": "array", "items": {**one, **found.items}, **found.keywords}
        if isinstance(field.value, DescFieldValueMap):
            keys = {**key_schema(field.value.key), **found.keys}
            named = {"propertyNames": keys} if keys else {}
            return {"type": "object", "additionalProperties": {**one, **found.items}, **named, **found.keywords}
        made = {**one, **found.keywords}
        if isinstance(element, DescEnum) and "enum" in found.keywords:
            made = {"type": "string", "enum": found.keywords["enum"]}
        return made

    def _marks(self, field: DescField, behaviors: set[str]) -> Json:
        marks: Json = {}
        if "OUTPUT_ONLY" in behaviors:
            marks["readOnly"] = True
        if "INPUT_ONLY" in behaviors:
            marks["writeOnly"] = True
        if "IMMUTABLE" in behaviors:
            marks["x-immutable"] = True
        if field.deprecated:
            marks["deprecated"] = True
        if option(self._registry, field, "shop.options.v1.sensitive"):
            marks["x-sensitive"] = True
        oneof = getattr(field.value, "oneof", None)
        if oneof is not None and not is_optional(field):
            marks["x-oneof"] = oneof.name
        return marks

    def _enum(self, enum: DescEnum, view: View) -> Json:
        known = well_known(enum)
        if known is not None:
            return known
        if view is View.REPLY and self._settings.enum_numbers:
            return {"type": "integer", "format": "int32"}
        name = self._short[enum.type_name]
        while self._keys.setdefault(name, enum.type_name) != enum.type_name:
            name += "_"
        if name not in self.components:
            made: Json = {"type": "string", "enum": [value.name for value in enum.values]}
            if text := self._comments.of(enum.type_name):
                made["description"] = text
            descriptions = [self._comments.of(f"{enum.type_name}.{value.name}") for value in enum.values]
            if any(descriptions):
                made["x-enum-descriptions"] = descriptions
            self.components[name] = made
        return {"$ref": f"#/components/schemas/{name}"}


def is_optional(field: DescField) -> bool:
    """Return whether a field's oneof is synthetic, for `optional`."""
    return bool(field.proto.proto3_optional)


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(f"`{name}`" for name in names[:-1]), f"`{names[-1]}`"]))
