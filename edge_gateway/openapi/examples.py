"""Example values that are valid for their schemas: recognizable words where they fit, else the simplest text."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from edge_gateway.openapi.constraints import Json

_parser: Any = __import__("re._parser", fromlist=["parse"])

#: Words by the end of a field's name, in lower case without underscores.
_WORDS: tuple[tuple[str, str], ...] = (
    ("countrycode", "DE"),
    ("currencycode", "EUR"),
    ("email", "ada@example.com"),
    ("displayname", "Ada Lovelace"),
    ("recipient", "Ada Lovelace"),
    ("password", "correct horse battery"),
    ("phone", "+49 30 1234567"),
    ("line1", "Unter den Linden 1"),
    ("city", "Berlin"),
    ("region", "Berlin"),
    ("postalcode", "10117"),
    ("timezone", "Europe/Berlin"),
    ("sku", "TEA-GREEN-100"),
    ("requestid", "6f1c1f0e-8f0b-4c7d-9d61-3a6f0a3f5c11"),
    ("url", "https://example.com"),
    ("etag", "7"),
    ("units", "20"),
)
_NUMBERS = {"nanos": 0}
_ID = re.compile(r"(.*?)_?[iI]d")
_FORMATS = {
    "date-time": "2026-01-02T03:04:05Z",
    "google-duration": "3.5s",
    "byte": "aGVsbG8=",
    "email": "ada@example.com",
    "uuid": "6f1c1f0e-8f0b-4c7d-9d61-3a6f0a3f5c11",
    "uri": "https://example.com",
    "uri-reference": "/a",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
}
_PLAIN = ("text", "text1", "1", "0", "a", "A", "")
_PLAIN_CHARACTERS = "a0-_. AbB1/:"
_DEEPEST = 6


class Examples:
    """Builds example values of schemas, with the components that they refer to."""

    def __init__(self, components: dict[str, Json]) -> None:
        self._components = components

    def of(self, schema: Json, name: str = "", depth: int = 0) -> Any:
        """Return a valid value of a schema."""
        flat = self.flatten(schema)
        named = [*flat.get("examples", ()), *([flat["const"]] if "const" in flat else flat.get("enum", ()))]
        if named:
            return next((it for it in named if not str(it).endswith("_UNSPECIFIED")), named[0])
        kind = flat.get("type")
        match kind[0] if isinstance(kind, list) else kind:
            case "object":
                return self._object(flat, depth)
            case "array":
                return self._array(flat, name, depth)
            case "string":
                return text_for(flat, name)
            case "integer" | "number":
                return _number(flat, _NUMBERS.get(name, 1))
            case other:
                return other == "boolean" or {}

    def flatten(self, schema: Json) -> Json:
        """Resolve a reference, and merge the parts of an `allOf`."""
        flat: Json = {}
        parts = [schema]
        while parts:
            part = parts.pop(0)
            if "$ref" in part:
                parts.insert(0, self._components[part["$ref"].rpartition("/")[2]])
            parts += part.get("allOf", ())
            for key, value in part.items():
                if key == "properties":
                    flat[key] = _joined(flat.get(key, {}), value)
                elif key == "required":
                    flat[key] = [*dict.fromkeys([*flat.get(key, ()), *value])]
                elif key == "pattern":
                    flat.setdefault("patterns", []).append(value)
                elif key not in ("$ref", "allOf"):
                    flat[key] = value
        return flat

    def _object(self, flat: Json, depth: int) -> Json:
        properties = flat.get("properties", {})
        closed = ("readOnly", "x-immutable")
        open_to_writing = {name: it for name, it in properties.items() if not any(it.get(mark) for mark in closed)}
        is_input = flat.get("additionalProperties") is False
        wanted = flat.get("required", ())
        if is_input and not wanted:
            wanted = [name for name, it in open_to_writing.items() if self._is_simple(it) and name != "etag"]
            wanted = _one_of_each(wanted, properties)
        elif not is_input:
            wanted = _one_of_each(properties, properties)
        if depth >= _DEEPEST:
            wanted = [name for name in wanted if name in flat.get("required", ())]
        made = {name: self.of(properties[name], name, depth + 1) for name in wanted if name in properties}
        values = flat.get("additionalProperties")
        if isinstance(values, dict) and not properties and depth < _DEEPEST:
            key = self.of({"type": "string", **flat.get("propertyNames", {})}, "key")
            made[key] = self.of(values, "value", depth + 1)
        return made

    def _array(self, flat: Json, name: str, depth: int) -> list[Any]:
        if depth >= _DEEPEST and not flat.get("minItems"):
            return []
        one = self.of(flat.get("items", {}), name.removesuffix("s"), depth + 1)
        return [one] * max(1, min(flat.get("minItems", 1), 1 if flat.get("uniqueItems") else 3))

    def _is_simple(self, schema: Json) -> bool:
        flat = self.flatten(schema)
        return (
            flat.get("type") in ("string", "integer", "number", "boolean") and flat.get("format") != "google-fieldmask"
        )


def _one_of_each(names: Iterable[str], properties: Json) -> list[str]:
    """Remove all but the first member of a oneof."""
    groups: set[str] = set()
    kept = []
    for name in names:
        group = properties[name].get("x-oneof")
        if group not in groups:
            kept.append(name)
        groups |= {group} if group else set()
    return kept


def _joined(ours: Json, theirs: Json) -> Json:
    """Merge properties; one that both parts of an `allOf` constrain obeys both."""
    joined = dict(ours)
    for name, schema in theirs.items():
        joined[name] = {"allOf": [ours[name], schema]} if name in ours else schema
    return joined


def _number(flat: Json, wanted: float) -> float:
    low = flat.get("minimum", flat["exclusiveMinimum"] + 1 if "exclusiveMinimum" in flat else None)
    high = flat.get("maximum", flat["exclusiveMaximum"] - 1 if "exclusiveMaximum" in flat else None)
    if low is not None and wanted < low:
        return float(low) if flat.get("type") == "number" else low
    return high if high is not None and wanted > high else wanted


def word_for(name: str) -> str:
    """Return a word that fits the name of a field."""
    plain = name.replace("_", "").lower()
    for end, word in _WORDS:
        if plain.endswith(end):
            return word
    if found := _ID.fullmatch(name):
        return f"{found[1].replace('_', '-') or 'id'}-1"
    return re.sub(r"_|(?<=[a-z0-9])(?=[A-Z])", " ", name).lower() or "text"


def text_for(flat: Json, name: str) -> str:
    """Return a valid text of a schema of strings."""
    return next((text for text in _candidates(flat, name) if _allows(flat, text)), "")


def _candidates(flat: Json, name: str) -> Iterator[str]:
    if flat.get("format") in _FORMATS:
        yield _FORMATS[flat["format"]]
    word = word_for(name)
    yield from (word, word.replace(" ", "-"), word.upper(), *_PLAIN)
    plain = [plainest(pattern) for pattern in flat.get("patterns", ())]
    yield from (*plain, "".join(plain))
    yield "a" * int(flat.get("minLength", 1))


def _allows(flat: Json, text: str) -> bool:
    if not flat.get("minLength", 0) <= len(text) <= flat.get("maxLength", len(text)):
        return False
    try:
        return all(re.search(pattern, text) for pattern in flat.get("patterns", ()))
    except re.error:
        return False


def plainest(pattern: str) -> str:
    """Return the shortest text of the first branch of a pattern."""
    try:
        return "".join(_written(part) for part in _parser.parse(pattern))
    except re.error:
        return ""


def _written(part: Any) -> str:
    kind, argument = str(part[0]), part[1]
    match kind:
        case "LITERAL":
            return chr(argument)
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
            return "".join(map(_written, argument[2])) * int(argument[0])
        case "BRANCH":
            return "".join(map(_written, argument[1][0]))
        case "SUBPATTERN":
            return "".join(map(_written, argument[3]))
        case "IN" | "NOT_LITERAL":
            return _member(argument if kind == "IN" else [("NEGATE", None), ("LITERAL", argument)])
    return "a" if kind == "ANY" else ""


def _holds(choice: Any, character: str) -> bool:
    kind, argument = str(choice[0]), choice[1]
    if kind == "RANGE":
        return bool(argument[0] <= ord(character) <= argument[1])
    if kind == "CATEGORY":
        return {"CATEGORY_DIGIT": character.isdigit(), "CATEGORY_SPACE": character.isspace()}.get(str(argument), True)
    return bool(ord(character) == argument)


def _member(choices: Any) -> str:
    """Return the first member of a character class, or the simplest character outside a negated one."""
    kind, argument = str(choices[0][0]), choices[0][1]
    if kind == "NEGATE":
        return next((it for it in _PLAIN_CHARACTERS if not any(_holds(choice, it) for choice in choices[1:])), "")
    if kind == "RANGE":
        return chr(argument[0])
    if kind == "CATEGORY":
        return {"CATEGORY_DIGIT": "0", "CATEGORY_SPACE": " "}.get(str(argument), "a")
    return chr(argument)
