"""buf.validate rules as keywords of JSON Schema; what has no keyword becomes a sentence.

Rules are read in their JSON form, so that nothing here depends on which version of them a descriptor set was built
with: a rule that is not known is left out, and the server checks it all the same.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from protobuf import DescEnum, DescField, Registry, ScalarType, message_to_json_value

from edge_gateway.openapi.numbers import duration_pattern, integer_pattern
from edge_gateway.openapi.predefined import expand
from edge_gateway.routing.descriptors import option

Json = dict[str, Any]

#: JSON has numbers for these; the 64-bit ones are text.
NUMBERS = {
    ScalarType.INT32: (-(2**31), 2**31 - 1),
    ScalarType.SINT32: (-(2**31), 2**31 - 1),
    ScalarType.SFIXED32: (-(2**31), 2**31 - 1),
    ScalarType.UINT32: (0, 2**32 - 1),
    ScalarType.FIXED32: (0, 2**32 - 1),
    ScalarType.FLOAT: (None, None),
    ScalarType.DOUBLE: (None, None),
}
UNSIGNED_64 = {ScalarType.UINT64, ScalarType.FIXED64}
SIGNED_64 = {ScalarType.INT64, ScalarType.SINT64, ScalarType.SFIXED64}

_PLAIN = {
    "minLen": "minLength",
    "maxLen": "maxLength",
    "pattern": "pattern",
    "minItems": "minItems",
    "maxItems": "maxItems",
    "unique": "uniqueItems",
    "minPairs": "minProperties",
    "maxPairs": "maxProperties",
    "gte": "minimum",
    "lte": "maximum",
    "gt": "exclusiveMinimum",
    "lt": "exclusiveMaximum",
    "const": "const",
    "in": "enum",
}
_COUNTS = {"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"}
_FORMATS = {
    "email": "email", "hostname": "hostname", "ipv4": "ipv4", "ipv6": "ipv6", "uri": "uri", "uriRef": "uri-reference",
    "uuid": "uuid",
}  # fmt: skip
_WELL_KNOWN = {
    "ip": "an IP address",
    "address": "a host name or an IP address",
    "tuuid": "a UUID without dashes",
    "ipWithPrefixlen": "an IP address with a prefix length",
    "ipPrefix": "an IP network",
    "hostAndPort": "a host and a port",
    "ulid": "a ULID",
}
_COMPARED = {"gte": "at least", "gt": "more than", "lte": "at most", "lt": "less than", "const": "exactly"}


@dataclass(slots=True)
class Constraint:
    """The constraints of one field."""

    keywords: Json = field(default_factory=dict)
    #: Constraints of each element of a list, or of each value of a map.
    items: Json = field(default_factory=dict)
    keys: Json = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    expressions: list[str] = field(default_factory=list)
    required: bool = False
    #: Whether an empty value is valid unchecked.
    lenient: bool = False


def rules_of(registry: Registry, described: Any, name: str) -> Json:
    """Return a buf.validate option in its JSON form; empty if it is not set."""
    rules = option(registry, described, name)
    found = message_to_json_value(rules, registry=registry) if rules is not None else {}
    return found if isinstance(found, dict) else {}


def constraint_of(registry: Registry, described: DescField, element: Any) -> Constraint:
    """Read the rules of a field whose single values are of the type `element`."""
    rules = expand(registry, rules_of(registry, described, "buf.validate.field"))
    found = Constraint()
    if rules.get("ignore") == "IGNORE_ALWAYS":
        return found
    found.required = rules.get("required", False)
    found.lenient = rules.get("ignore") == "IGNORE_IF_ZERO_VALUE"
    add_expressions(found, rules)
    if "repeated" in rules:
        found.keywords = _typed("repeated", rules["repeated"], None, found)
        found.items = _of_elements(rules["repeated"].get("items", {}), element, found)
    elif "map" in rules:
        found.keywords = _typed("map", rules["map"], None, found)
        found.items = _of_elements(rules["map"].get("values", {}), element, found)
        found.keys = _of_elements(rules["map"].get("keys", {}), ScalarType.STRING, found)
    else:
        found.keywords = _of_elements(rules, element, found)
    return found


def add_expressions(found: Constraint, rules: Json) -> None:
    """Add CEL rules: their messages for readers, their expressions for tools."""
    for rule in rules.get("cel", ()):
        found.expressions.append(rule.get("expression", ""))
        if message := rule.get("message"):
            found.notes.append(sentence(message))
    found.expressions += rules.get("celExpression", ())


def _of_elements(rules: Json, element: Any, found: Constraint) -> Json:
    for kind, rule in rules.items():
        if isinstance(rule, dict):
            examples = {"examples": rule["example"]} if rule.get("example") else {}
            return {**_typed(kind, rule, element, found), **examples}
    return {}


def _typed(kind: str, rule: Json, element: Any, found: Constraint) -> Json:
    if kind == "enum":
        return _enum(rule, element)
    if kind == "fieldMask":
        return _field_mask(rule)
    if kind in ("duration", "timestamp", "any", "bytes"):
        found.notes += _spoken(kind, rule)
        return _duration(rule) if kind == "duration" else {}
    if element in UNSIGNED_64 or element in SIGNED_64:
        return _long(rule, element in UNSIGNED_64)
    keywords = {_PLAIN[name]: value for name, value in rule.items() if name in _PLAIN}
    keywords.update({name: int(keywords[name]) for name in _COUNTS & keywords.keys()})
    if "notIn" in rule:
        keywords["not"] = {"enum": rule["notIn"]}
    if kind == "string":
        _string(keywords, rule, found)
    return keywords


def _string(keywords: Json, rule: Json, found: Constraint) -> None:
    if "len" in rule:
        keywords["minLength"] = keywords["maxLength"] = int(rule["len"])
    if int(rule.get("minBytes", 0)) or int(rule.get("lenBytes", 0)):
        keywords.setdefault("minLength", 1)
    if most := int(rule.get("maxBytes") or rule.get("lenBytes") or 0):
        keywords["maxLength"] = min(most, keywords.get("maxLength", most))
        found.notes.append(f"At most {most} bytes of UTF-8.")
    patterns = [keywords["pattern"]] if "pattern" in keywords else []
    patterns += [f"^{_literal(rule['prefix'])}"] if "prefix" in rule else []
    patterns += [f"{_literal(rule['suffix'])}$"] if "suffix" in rule else []
    patterns += [_literal(rule["contains"])] if "contains" in rule else []
    patterns = [pattern.replace(r"\z", "$").replace(r"\A", "^") for pattern in patterns]  # RE2's anchors
    if patterns:
        keywords["pattern"] = patterns[0]
    if len(patterns) > 1:
        keywords["allOf"] = [{"pattern": pattern} for pattern in patterns[1:]]
    for name in rule:
        if name in _FORMATS:
            keywords["format"] = _FORMATS[name]
        elif name in _WELL_KNOWN:
            found.notes.append(f"Must be {_WELL_KNOWN[name]}.")


def _long(rule: Json, unsigned: bool) -> Json:  # noqa: FBT001 - one of two kinds
    """Return the constraints of a 64-bit integer, whose JSON is a string."""
    if "const" in rule:
        return {"const": str(rule["const"])}
    if "in" in rule:
        return {"enum": [str(value) for value in rule["in"]]}
    ends = {name: int(rule[name]) for name in ("gte", "gt", "lte", "lt") if name in rule}
    if not ends:
        return {}
    low = ends.get("gte", ends["gt"] + 1 if "gt" in ends else 0 if unsigned else None)
    high = ends.get("lte", ends["lt"] - 1 if "lt" in ends else None)
    if low is not None and high is not None and low > high:  # protovalidate then excludes the range between them
        return {}
    return {"pattern": integer_pattern(low, high)}


def _duration(rule: Json) -> Json:
    """Return the pattern of a range of whole seconds; other ranges are only described."""
    ends = [rule.get("gte", "-"), rule.get("lte", rule.get("lt", "-"))]
    if not all(re.fullmatch(r"[0-9]{1,12}s", end) for end in ends):
        return {}
    low, high = (int(end[:-1]) for end in ends)
    return {"pattern": duration_pattern(low, high, inclusive="lte" in rule)} if low <= high else {}


def _enum(rule: Json, element: Any) -> Json:
    assert isinstance(element, DescEnum)
    names = {value.number: value.name for value in element.values}
    wanted = [rule["const"]] if "const" in rule else rule.get("in", ())
    if wanted:
        return {"enum": [names[number] for number in wanted if number in names]}
    if unwanted := rule.get("notIn"):
        return {"enum": [name for number, name in names.items() if number not in unwanted]}
    return {}


def _field_mask(rule: Json) -> Json:
    paths = rule.get("in", ())
    if not paths:
        return {}
    one = "|".join(_literal(camel_path(path)) for path in paths)
    return {"pattern": f"^(?:(?:{one})(?:,(?:{one}))*)?$"}


def _literal(text: str) -> str:
    """Escape text for a pattern, but no more than JavaScript accepts."""
    return re.sub(r"[.*+?^${}()|\[\]\\/]", r"\\\g<0>", text)


def camel_path(path: str) -> str:
    """Return a field path as ProtoJSON writes it in a FieldMask."""
    return re.sub(r"_([a-z0-9])", lambda found: found[1].upper(), path)


def _spoken(kind: str, rule: Json) -> list[str]:
    if kind == "bytes":
        sizes = [("len", "Exactly"), ("minLen", "At least"), ("maxLen", "At most")]
        return [f"{words} {rule[name]} bytes." for name, words in sizes if name in rule]
    if kind == "any":
        return [f"Only {', '.join(rule['in'])}."] if "in" in rule else []
    limits = [f"{words} {rule[name]}" for name, words in _COMPARED.items() if name in rule]
    if "gtNow" in rule:
        limits.append("in the future")
    if "ltNow" in rule:
        limits.append("in the past")
    if "within" in rule:
        limits.append(f"within {rule['within']} of now")
    return [f"Must be {' and '.join(limits)}."] if limits else []


def sentence(message: str) -> str:
    """Return a rule's message as a sentence."""
    first = message.partition(" ")[0]
    text = message if "." in first or "_" in first else message[:1].upper() + message[1:]
    return text if text.endswith((".", "!", "?")) else text + "."
