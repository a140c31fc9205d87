"""Field paths in errors: services name fields in proto spelling, JSON clients expect their JSON names."""

import re
from typing import Any

from protobuf import DescMessage

from edge_gateway.errors import EdgeError
from edge_gateway.routing.field_types import field_element

#: A name, indexes or keys, and the separator of the next name.
_STEP = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)((?:\[(?:"(?:[^"\\]|\\.)*"|[^\]"]*)\])*)(\.|$)')


def convert_field_paths(error: EdgeError, request: DescMessage) -> None:
    """Convert the paths of BadRequest and the `field` of ErrorInfo to JSON names, also where the message quotes it."""
    for detail in error.details:
        kind = str(detail.get("@type")).rpartition("/")[2]
        if kind == "google.rpc.BadRequest":
            for violation in detail.get("fieldViolations", ()):
                if "field" in violation:
                    violation["field"] = json_path(request, violation["field"])
        elif kind == "google.rpc.ErrorInfo" and "field" in detail.get("metadata", ()):
            metadata = detail["metadata"]
            path, metadata["field"] = metadata["field"], json_path(request, metadata["field"])
            if path != metadata["field"]:
                error.message = error.message.replace(path, metadata["field"])


def json_path(message: DescMessage, path: str) -> str:
    """Convert a path to JSON names, up to the first step that is not a field."""
    spelled, at = "", 0
    inner: Any = message
    while isinstance(inner, DescMessage) and (step := _STEP.match(path, at)) is not None:
        field = next((it for it in inner.fields if step[1] in (it.name, it.json_name)), None)
        if field is None:
            break
        spelled += field.json_name + step[2] + step[3]
        at, inner = step.end(), field_element(field)
    return spelled + path[at:]
