"""The types of google.protobuf whose JSON is a form of their own."""

from typing import Any

from protobuf import DescEnum, DescMessage

_INT64 = {"type": "string", "format": "int64", "pattern": "^-?[0-9]{1,19}$"}
_UINT64 = {"type": "string", "format": "uint64", "pattern": "^[0-9]{1,20}$"}
_PATHS = r"[A-Za-z][A-Za-z0-9]*(?:\.[A-Za-z][A-Za-z0-9]*)*"

_FORMS: dict[str, dict[str, Any]] = {
    "Timestamp": {"type": "string", "format": "date-time"},
    "Duration": {"type": "string", "format": "google-duration", "pattern": r"^-?[0-9]{1,12}(?:\.[0-9]{1,9})?s$"},
    "FieldMask": {"type": "string", "format": "google-fieldmask", "pattern": f"^(?:{_PATHS}(?:,{_PATHS})*)?$"},
    "Struct": {"type": "object", "additionalProperties": True},
    "Value": {"description": "Any JSON value."},
    "ListValue": {"type": "array", "items": {}},
    "Any": {
        "type": "object",
        "properties": {"@type": {"type": "string", "description": "Names the type of the rest."}},
        "required": ["@type"],
        "additionalProperties": True,
    },
    "Empty": {"type": "object", "properties": {}, "additionalProperties": False},
    "BoolValue": {"type": ["boolean", "null"]},
    "StringValue": {"type": ["string", "null"]},
    "BytesValue": {"type": ["string", "null"], "format": "byte", "contentEncoding": "base64"},
    "DoubleValue": {"type": ["number", "null"], "format": "double"},
    "FloatValue": {"type": ["number", "null"], "format": "float"},
    "Int32Value": {"type": ["integer", "null"], "format": "int32"},
    "UInt32Value": {"type": ["integer", "null"], "format": "uint32", "minimum": 0},
    "Int64Value": {**_INT64, "type": ["string", "null"]},
    "UInt64Value": {**_UINT64, "type": ["string", "null"]},
}


def well_known(desc: DescMessage | DescEnum) -> dict[str, Any] | None:
    """Return the schema of a well-known type; None for a type that has a component."""
    if desc.type_name == "google.protobuf.NullValue":
        return {"type": "null"}
    package, _, name = desc.type_name.rpartition(".")
    form = _FORMS.get(name) if package == "google.protobuf" else None
    return dict(form) if form is not None else None
