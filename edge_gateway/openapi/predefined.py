"""Predefined buf.validate rules, which are extensions of the standard ones, as the standard rules that they equal."""

import re
from typing import Any

from protobuf import Registry, message_to_json_value

from edge_gateway.routing.descriptors import option

Json = dict[str, Any]

_PATTERN = re.compile(r"!rule \|\| this\.matches\('([^'\\]*)'\)")


def expand(registry: Registry, rules: Json) -> Json:
    """Return rules in JSON form with a `pattern` for each extension that requires one; the server checks any other."""
    expanded: Json = {}
    for name, value in rules.items():
        if name.startswith("[") and value is True:
            expanded |= _standard(registry, name.strip("[]"))
        else:
            expanded[name] = expand(registry, value) if isinstance(value, dict) else value
    return expanded


def _standard(registry: Registry, extension: str) -> Json:
    predefined = option(registry, registry.extension(extension), "buf.validate.predefined")
    rules: Any = message_to_json_value(predefined, registry=registry) if predefined is not None else {}
    expressions = [rule.get("expression", "") for rule in rules.get("cel", ())]
    patterns = [found[1] for found in map(_PATTERN.fullmatch, expressions) if found]
    return {"pattern": patterns[0]} if patterns else {}
