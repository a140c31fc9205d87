"""Templates as OpenAPI paths, which allow one name for each segment, and no slashes in values."""

from dataclasses import dataclass
from typing import Any

from protobuf import ScalarType

from edge_gateway.openapi.constraints import Json
from edge_gateway.openapi.overlay import rejects_empty
from edge_gateway.openapi.schemas import Schemas, View
from edge_gateway.routing.field_binding import FieldBinding
from edge_gateway.routing.field_types import field_element
from edge_gateway.routing.rules import Rule
from edge_gateway.routing.template import REST, STAR


@dataclass(frozen=True, slots=True)
class Place:
    """A wildcard of a template, and the field that it sets, alone or with others."""

    segment: str
    binding: FieldBinding | None
    #: The pattern of the whole field, such as `shelves/*`.
    pattern: str
    is_whole: bool


class Paths:
    """Names the wildcards of paths; the first rule of a path names them for all."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas
        self._names: dict[Any, list[str]] = {}

    def of(self, rule: Rule) -> tuple[str, list[Json]]:
        """Return the path of a rule and its parameters."""
        template = rule.template
        places = _places(rule)
        names = self._names.setdefault((template.segments, template.verb), self._name(places))
        waiting = iter(names)
        segments = (f"{{{next(waiting)}}}" if segment in (STAR, REST) else segment for segment in template.segments)
        path = "/" + "/".join(segments) + (f":{template.verb}" if template.verb else "")
        return path, [self._parameter(name, place) for name, place in zip(names, places, strict=True)]

    def _name(self, places: list[Place]) -> list[str]:
        names: list[str] = []
        for at, place in enumerate(places):
            if place.binding is None:
                names.append(f"segment{at + 1}")
                continue
            name = self._schemas.name_of(place.binding.field)
            of_field = [other.binding is place.binding for other in places]
            if sum(of_field) > 1:
                name += str(sum(of_field[: at + 1]))
            names.append(place.binding.name if name in names else name)
        return names

    def _parameter(self, name: str, place: Place) -> Json:
        parameter: Json = {"name": name, "in": "path", "required": True}
        binding = place.binding
        if binding is not None and place.is_whole:
            schema = self._schemas.field(binding.field, View.INPUT)
            schema = {key: value for key, value in schema.items() if key not in ("readOnly", "x-immutable")}
            parameter["description"] = schema.pop("description", "")
            if field_element(binding.field) is ScalarType.STRING and not rejects_empty(schema, binding.field):
                schema["minLength"] = 1
        else:
            schema = {"type": "string", "minLength": 1}
            of = f" of `{place.pattern}` in `{binding.name}`" if binding is not None else ""
            slashes = "; it may be several segments" if place.segment == REST else ""
            parameter["description"] = f"The `{place.segment}`{of}{slashes}."
        parameter["schema"] = schema
        if binding is not None and (not place.is_whole or len(binding.key) > 1):
            parameter["x-field"] = ".".join(binding.key)
        return {key: value for key, value in parameter.items() if value != ""}


def _places(rule: Rule) -> list[Place]:
    segments = rule.template.segments
    places = []
    for at, segment in enumerate(segments):
        if segment not in (STAR, REST):
            continue
        found = Place(segment, None, segment, is_whole=False)
        for variable, binding in zip(rule.template.variables, rule.variables, strict=True):
            covered = range(len(segments))[variable.start : variable.stop]
            if at in covered:
                run = segments[variable.start : variable.stop]
                found = Place(segment, binding, "/".join(run), is_whole=run == (STAR,))
        places.append(found)
    return places
