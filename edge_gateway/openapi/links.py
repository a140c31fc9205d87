"""Links from replies to further operations: an `orderId` in a reply fits the one in a path."""

from collections.abc import Iterator
from dataclasses import dataclass

from protobuf import DescField, DescFieldValueList, DescMessage

from edge_gateway.openapi.constraints import Json
from edge_gateway.openapi.schemas import Schemas
from edge_gateway.routing.field_types import field_element
from edge_gateway.routing.rules import Rule

#: Names too general to link by.
_VAGUE = {"name", "id", "type", "parent"}


@dataclass(frozen=True, slots=True)
class Target:
    """An operation, with the names of its path variables by their fields."""

    operation_id: str
    rule: Rule
    names: dict[str, str]


def links_of(rule: Rule, targets: list[Target], schemas: Schemas) -> Json:
    """Return the links of a rule's reply to other methods of its package whose whole path it determines."""
    if not rule.rpc.is_unary or rule.raw_response or rule.response_field is not None:
        return {}
    held = dict(_held(rule.rpc.output, schemas))
    links: Json = {}
    for target in targets:
        rpc = target.rule.rpc
        same_package = rpc.desc.parent.file.proto.package == rule.rpc.desc.parent.file.proto.package
        if not same_package or rpc.path == rule.rpc.path or not target.names or target.names.keys() - held.keys():
            continue
        if _VAGUE & target.names.keys():
            continue
        links[rpc.desc.name] = {
            "operationId": target.operation_id,
            "parameters": {name: f"$response.body#/{held[field]}" for field, name in target.names.items()},
        }
    return links


def _held(message: DescMessage, schemas: Schemas) -> Iterator[tuple[str, str]]:
    """Return the JSON pointers of a reply's strings, or of those in the first entry of its list, by field name."""
    lists = [field for field in message.fields if _is_list_of_messages(field)]
    has_own = any(_is_text(field) and field.name.endswith("_id") for field in message.fields)
    if len(lists) == 1 and not has_own:
        name = schemas.name_of(lists[0])
        element = field_element(lists[0])
        yield from ((it.name, f"{name}/0/{schemas.name_of(it)}") for it in element.fields if _is_text(it))
    yield from ((field.name, schemas.name_of(field)) for field in message.fields if _is_text(field))


def _is_text(field: DescField) -> bool:
    many = isinstance(field.value, DescFieldValueList)
    return not many and getattr(field_element(field), "name", "") == "STRING"


def _is_list_of_messages(field: DescField) -> bool:
    return isinstance(field.value, DescFieldValueList) and isinstance(field_element(field), DescMessage)
