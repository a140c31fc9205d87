"""Scalars, and the keys of maps, as JSON Schema."""

from protobuf import ScalarType

from edge_gateway.openapi.constraints import NUMBERS, SIGNED_64, UNSIGNED_64, Json
from edge_gateway.openapi.numbers import integer_pattern


def scalar_schema(scalar: ScalarType, *, read: bool) -> Json:
    """Return the schema of a value; without limits if it is only read."""
    if scalar is ScalarType.BOOL:
        return {"type": "boolean"}
    if scalar is ScalarType.STRING:
        return {"type": "string"}
    if scalar is ScalarType.BYTES:
        return {"type": "string", "format": "byte", "contentEncoding": "base64"}
    name = scalar.name.lower().replace("sint", "int").replace("ufixed", "uint")
    name = {"sfixed32": "int32", "sfixed64": "int64", "fixed32": "uint32", "fixed64": "uint64"}.get(name, name)
    if scalar in SIGNED_64 or scalar in UNSIGNED_64:
        low = 0 if scalar in UNSIGNED_64 else None
        pattern = integer_pattern(low, None) if not read else "^-?[0-9]+$"
        return {"type": "string", "format": name, "pattern": pattern}
    low, high = NUMBERS[scalar]
    if low is None:
        return {"type": "number", "format": name}
    limits = {"minimum": low, "maximum": high} if not read else {}
    return {"type": "integer", "format": name, **limits}


def key_schema(scalar: ScalarType) -> Json:
    """Return the schema of the keys of a map."""
    if scalar is ScalarType.STRING:
        return {}
    return {"enum": ["true", "false"]} if scalar is ScalarType.BOOL else {"pattern": "^-?[0-9]+$"}
