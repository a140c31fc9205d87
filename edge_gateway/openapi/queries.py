"""The fields that the query string of a rule may set, as parameters."""

from collections.abc import Iterator
from dataclasses import dataclass

from protobuf import DescField, DescFieldValueList, DescFieldValueMap, DescMessage

from edge_gateway.openapi.constraints import Json
from edge_gateway.openapi.overlay import Overlay
from edge_gateway.openapi.schemas import Schemas, View
from edge_gateway.routing.field_binding import FieldBinding
from edge_gateway.routing.field_types import field_element, is_opaque
from edge_gateway.routing.rules import Rule


@dataclass(frozen=True, slots=True)
class _Spot:
    """The position of the walk in the request."""

    path: tuple[DescField, ...]
    overlay: Overlay
    #: The descriptions of the fields above.
    notes: tuple[str, ...]
    required: bool


class Queries:
    """Builds query parameters."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas

    def of(self, rule: Rule) -> list[Json]:
        """Return every parameter that a rule's query string may contain."""
        if rule.body_whole:
            return []
        bound = {binding.key for binding in rule.variables}
        if rule.body_field is not None:
            bound.add((rule.body_field.name,))
        message = rule.rpc.input
        start = _Spot((), self._schemas.rules(message), (), required=True)
        return list(self._walk(message, start, bound))

    def _walk(self, message: DescMessage, spot: _Spot, bound: set[tuple[str, ...]]) -> Iterator[Json]:
        for field in message.fields:
            path = (*spot.path, field)
            overlay = spot.overlay.children.get(field.name, Overlay(field))
            if tuple(step.name for step in path) in bound or "OUTPUT_ONLY" in self._schemas.behaviors(field):
                continue
            must = self._schemas.must_be_present(field, View.INPUT) or field.name in spot.overlay.required
            below = _Spot(path, overlay, spot.notes, required=spot.required and must)
            if FieldBinding(path).parse is not None:
                yield self._parameter(below)
            elif _is_plain(field) and field_element(field) not in [field_element(step) for step in spot.path]:
                yield from self._walk(field_element(field), self._inside(field, below), bound)

    def _inside(self, field: DescField, spot: _Spot) -> _Spot:
        """Return the position below a field, with the field's own rules for the fields below it."""
        schema = self._schemas.field(field, View.INPUT)
        overlay = self._schemas.field_rules(field) if not spot.overlay.children else spot.overlay
        return _Spot(spot.path, overlay, (*spot.notes, schema.get("description", "")), spot.required)

    def _parameter(self, spot: _Spot) -> Json:
        field = spot.path[-1]
        schema = {**self._schemas.field(field, View.INPUT), **spot.overlay.own()}
        notes = [*spot.notes, schema.pop("description", "")]
        name = ".".join(self._schemas.name_of(step) for step in spot.path)
        parameter: Json = {"name": name, "in": "query"}
        if spot.required:
            parameter["required"] = True
        if schema.pop("deprecated", False):
            parameter["deprecated"] = True
        if text := " ".join(filter(None, notes)):
            parameter["description"] = text
        if isinstance(field.value, DescFieldValueMap):
            parameter.update(style="deepObject", explode=True)
        if isinstance(schema.get("type"), list):  # a query has no null
            schema["type"] = schema["type"][0]
        return {**parameter, "schema": schema}


def _is_plain(field: DescField) -> bool:
    element = field_element(field)
    many = isinstance(field.value, DescFieldValueList | DescFieldValueMap)
    return isinstance(element, DescMessage) and not many and not is_opaque(element)
