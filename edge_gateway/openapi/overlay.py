"""Constraints of fields, as a tree that is merged into the schema of a message."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from protobuf import DescEnum, DescField, DescFieldValueList, DescFieldValueMap, DescMessage, ScalarType

from edge_gateway.openapi.cel import demands
from edge_gateway.openapi.constraints import NUMBERS, SIGNED_64, UNSIGNED_64, Json
from edge_gateway.openapi.numbers import integer_pattern
from edge_gateway.routing.field_types import field_element


@dataclass(slots=True)
class Overlay:
    """The constraints of a value, and of the fields below it."""

    described: DescField | None = None
    keywords: Json = field(default_factory=dict)
    required: set[str] = field(default_factory=set)
    children: "dict[str, Overlay]" = field(default_factory=dict)

    @classmethod
    def of(cls, message: DescMessage, expressions: Iterable[str]) -> "Overlay":
        """Collect the constraints of CEL expressions in which `this` is a message."""
        root = cls()
        for expression in expressions:
            for demand in demands(expression):
                root._add(message, demand.path, demand.keywords)
        return root

    def _add(self, message: Any, path: tuple[str, ...], keywords: Json) -> None:
        steps: list[tuple[Overlay, str]] = []
        node: Overlay = self
        for name in path:
            found = next((it for it in getattr(message, "fields", ()) if it.name == name), None)
            if found is None:
                return
            steps.append((node, name))
            node = node.children.setdefault(name, Overlay(found))
            message = field_element(found) if not _is_many(found) else None
        node.keywords.update(keywords)
        if node.described is not None and (not keywords or rejects_empty(node.own(), node.described)):
            for parent, name in steps:
                parent.required.add(name)

    def own(self) -> Json:
        """Return the keywords of this value alone; ranges of 64-bit integers become patterns."""
        element = field_element(self.described) if self.described is not None else None
        if element not in SIGNED_64 and element not in UNSIGNED_64:
            return self.keywords
        given = self.keywords
        if "const" in given:
            return {"const": str(given["const"])}
        low = given.get("minimum", given["exclusiveMinimum"] + 1 if "exclusiveMinimum" in given else None)
        high = given.get("maximum", given["exclusiveMaximum"] - 1 if "exclusiveMaximum" in given else None)
        if low is None and element in UNSIGNED_64:
            low = 0
        return {"pattern": integer_pattern(low, high)} if given else {}

    def without(self, names: Collection[str]) -> "Overlay":
        """Return the overlay without some fields."""
        kept = {name: child for name, child in self.children.items() if name not in names}
        return Overlay(self.described, self.keywords, self.required - set(names), kept)

    def schema(self, *, proto_names: bool) -> Json:
        """Return the overlay as JSON Schema; empty without constraints."""
        made = dict(self.own())
        if self.required:
            made["required"] = sorted(self._name(name, proto_names=proto_names) for name in self.required)
        properties = {
            self._name(name, proto_names=proto_names): {**_type_of(child.described), **inner}
            for name, child in sorted(self.children.items())
            if (inner := child.schema(proto_names=proto_names)) or name in self.required
        }
        if properties:
            made["properties"] = properties
        return made

    def _name(self, name: str, *, proto_names: bool) -> str:
        found = self.children[name].described if name in self.children else None
        return name if proto_names or found is None else found.json_name


def rejects_empty(keywords: Json, described: DescField) -> bool:
    """Return whether a field's default violates its rules, so that the field is required."""
    if _is_many(described):
        return bool(keywords.get("minItems", 0) > 0 or keywords.get("minProperties", 0) > 0)
    element = field_element(described)
    if isinstance(element, DescEnum):
        return not _allows(keywords, next((value.name for value in element.values if value.number == 0), ""))
    if element in SIGNED_64 or element in UNSIGNED_64:
        return not _allows_text(keywords, "0")
    if element is ScalarType.STRING:
        return not _allows_text(keywords, "")
    return element in NUMBERS and not _allows_number(keywords, 0)


def _allows(keywords: Json, value: Any) -> bool:
    wanted = [keywords["const"]] if "const" in keywords else keywords.get("enum", [value])
    return value in wanted and value not in keywords.get("not", {}).get("enum", ())


def _allows_text(keywords: Json, text: str) -> bool:
    if len(text) < keywords.get("minLength", 0) or (not text and keywords.get("format")):
        return False
    patterns = [part["pattern"] for part in (keywords, *keywords.get("allOf", ())) if "pattern" in part]
    return _allows(keywords, text) and all(_matches(pattern, text) for pattern in patterns)


def _matches(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except re.error:  # RE2 has forms that Python lacks: let the server decide
        return True


def _allows_number(keywords: Json, number: float) -> bool:
    return (
        _allows(keywords, number)
        and keywords.get("minimum", number) <= number <= keywords.get("maximum", number)
        and not (
            keywords.get("exclusiveMinimum", number - 1) >= number
            or keywords.get("exclusiveMaximum", number + 1) <= number
        )
    )


def _type_of(described: DescField | None) -> Json:
    """Repeat the type, for tools that read each part of an `allOf` on its own."""
    if described is None:
        return {}
    if isinstance(described.value, DescFieldValueList):
        return {"type": "array"}
    element = field_element(described)
    if isinstance(described.value, DescFieldValueMap) or isinstance(element, DescMessage):
        return {"type": "object"}
    if element in (ScalarType.STRING, ScalarType.BYTES) or element in SIGNED_64 or element in UNSIGNED_64:
        return {"type": "string"}
    if element in (ScalarType.FLOAT, ScalarType.DOUBLE):
        return {"type": "number"}
    return {"type": "boolean" if element is ScalarType.BOOL else "integer"} if isinstance(element, ScalarType) else {}


def _is_many(described: DescField) -> bool:
    return isinstance(described.value, DescFieldValueList | DescFieldValueMap)
