"""Field paths in refusals: services name fields as their protos do, a JSON client reads names as it wrote them."""

import re
from typing import Any

from protobuf import DescMessage

from edge_gateway.errors import EdgeError
from edge_gateway.routing.field_types import field_element

#: A name, what is picked of a list or a map, and what leads to the next name.
_STEP = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)((?:\[(?:"(?:[^"\\]|\\.)*"|[^\]"]*)\])*)(\.|$)')


def spell_fields(error: EdgeError, request: DescMessage) -> None:
    """Respells the paths in BadRequest, and the `field` of an ErrorInfo, also where the message quotes it."""
    for detail in error.details:
        kind = str(detail.get("@type")).rpartition("/")[2]
        if kind == "google.rpc.BadRequest":
            for violation in detail.get("fieldViolations", ()):
                if "field" in violation:
                    violation["field"] = json_path(request, violation["field"])
        elif kind == "google.rpc.ErrorInfo" and "field" in detail.get("metadata", ()):
            metadata = detail["metadata"]
            said, metadata["field"] = metadata["field"], json_path(request, metadata["field"])
            if said != metadata["field"]:
                error.message = error.message.replace(said, metadata["field"])


def json_path(message: DescMessage, path: str) -> str:
    """Spells a path as JSON does, up to the first step that is no field."""
    spelled, at = "", 0
    inner: Any = message
    while isinstance(inner, DescMessage) and (step := _STEP.match(path, at)) is not None:
        field = next((it for it in inner.fields if step[1] in (it.name, it.json_name)), None)
        if field is None:
            break
        spelled += field.json_name + step[2] + step[3]
        at, inner = step.end(), field_element(field)
    return spelled + path[at:]
