"""ProtoJSON, strictly: protobuf-py's Rust codec does the work, a scan refuses what it lets through.

The codec is right about types, ranges, well-known types, UTF-8, surrogates, trailing data and the depth of
messages. It lets pass duplicate keys, both spellings of one field, two members of one oneof, and NUL; and it
names the type in which an unknown field stands rather than the path to it. The scan looks for those.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from protobuf import (
    DescField,
    DescFieldValueEnum,
    DescFieldValueList,
    DescFieldValueMap,
    DescFieldValueMessage,
    DescFieldValueScalar,
    DescMessage,
    Message,
    Registry,
    ScalarType,
    message_from_json_value,
    message_to_json_value,
)

from edge_gateway.errors import EdgeError, internal, invalid_argument
from edge_gateway.jsontext import MAX_DEPTH, Refused, explain, is_json, is_plain, not_json, parse_unique, too_deep

#: Well-known types whose JSON is not an object of their fields.
_OPAQUE = {
    "google.protobuf." + name
    for name in (
        "Any", "Struct", "Value", "ListValue", "Timestamp", "Duration", "FieldMask", "BoolValue", "BytesValue",
        "DoubleValue", "FloatValue", "Int32Value", "Int64Value", "StringValue", "UInt32Value", "UInt64Value",
    )
}  # fmt: skip

_INTEGER_TEXT = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")

_SCALAR_WANTS = {
    ScalarType.BOOL: "true or false",
    ScalarType.STRING: "a string",
    ScalarType.BYTES: "a base64 string",
    ScalarType.FLOAT: 'a number, or one of "NaN", "Infinity" and "-Infinity"',
    ScalarType.DOUBLE: 'a number, or one of "NaN", "Infinity" and "-Infinity"',
    ScalarType.INT32: "an integer of 32 bits",
    ScalarType.SINT32: "an integer of 32 bits",
    ScalarType.SFIXED32: "an integer of 32 bits",
    ScalarType.UINT32: "an unsigned integer of 32 bits",
    ScalarType.FIXED32: "an unsigned integer of 32 bits",
    ScalarType.INT64: "an integer of 64 bits, as a number or a string",
    ScalarType.SINT64: "an integer of 64 bits, as a number or a string",
    ScalarType.SFIXED64: "an integer of 64 bits, as a number or a string",
    ScalarType.UINT64: "an unsigned integer of 64 bits, as a number or a string",
    ScalarType.FIXED64: "an unsigned integer of 64 bits, as a number or a string",
}  # fmt: skip
_TYPE_WANTS = {
    "google.protobuf.Timestamp": 'an RFC 3339 time such as "2026-01-02T03:04:05Z"',
    "google.protobuf.Duration": 'a duration such as "3.5s"',
    "google.protobuf.FieldMask": "field paths in lowerCamelCase, joined by commas",
    "google.protobuf.Any": 'an object with the "@type" of a known message',
    "google.protobuf.Struct": "an object",
    "google.protobuf.ListValue": "a list",
}  # fmt: skip
_INTEGER_WRAPPERS = {"google.protobuf." + name for name in ("Int32Value", "Int64Value", "UInt32Value", "UInt64Value")}
_INTEGERS = set(ScalarType) - {
    ScalarType.BOOL,
    ScalarType.STRING,
    ScalarType.BYTES,
    ScalarType.FLOAT,
    ScalarType.DOUBLE,
}


def is_opaque(message: DescMessage) -> bool:
    """Tells whether a type's JSON is a form of its own, not an object of its fields."""
    return message.type_name in _OPAQUE


class _Member:
    """What the scan knows of one field."""

    __slots__ = ("child", "field", "has_integer_keys", "is_integer", "is_list", "is_map", "oneof")

    def __init__(self, field: DescField) -> None:
        self.field = field
        value = field.value
        self.is_list = isinstance(value, DescFieldValueList)
        self.is_map = isinstance(value, DescFieldValueMap)
        self.oneof = None if isinstance(value, DescFieldValueList | DescFieldValueMap) else value.oneof
        element = field_element(field)
        self.child = element if isinstance(element, DescMessage) and not is_opaque(element) else None
        self.is_integer = element in _INTEGERS or getattr(element, "type_name", "") in _INTEGER_WRAPPERS
        self.has_integer_keys = isinstance(value, DescFieldValueMap) and value.key in _INTEGERS


def field_element(field: DescField) -> Any:
    """The type of a field's single values: a ScalarType, a DescEnum or a DescMessage."""
    match field.value:
        case DescFieldValueScalar(scalar=element) | DescFieldValueList(element=element):
            return element
        case DescFieldValueMessage(message=element) | DescFieldValueMap(value=element):
            return element
        case DescFieldValueEnum(enum=element):
            return element


@dataclass(frozen=True, slots=True)
class Print:
    """How a reply is written; see docs/edge.md for the parameters that choose it."""

    emit_defaults: bool = True
    proto_names: bool = False
    enum_numbers: bool = False
    pretty: bool = False


class JsonCodec:
    """Reads and writes the messages of one registry."""

    def __init__(self, registry: Registry, *, ignore_unknown: bool = False) -> None:
        self.registry = registry
        self.ignore_unknown = ignore_unknown
        self._members: dict[str, dict[str, _Member]] = {}
        self._simple: dict[str, bool] = {}

    def decode(self, message: DescMessage, text: bytes) -> Message:
        """Reads a message, or raises EdgeError 400 with the path of the field at fault."""
        try:
            decoded = message.type.from_json(text, registry=self.registry, ignore_unknown_fields=self.ignore_unknown)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise self._diagnosis(message, text, error) from None
        if self.ignore_unknown:
            # To the codec, ignoring unknown fields means ignoring unknown enum names too; so it reads again.
            return self._from_value(message, self._scanned(message, text))
        if not (self._is_simple(message) and is_plain(text)):
            self._scanned(message, text)
        return decoded

    def decode_field(self, holder: DescMessage, field: DescField, text: bytes) -> Message:
        """Reads one field's value, and returns a message of `holder` in which only that field is set."""
        # One whole value, so that the text below cannot break out of its braces.
        if not is_json(text) and (error := explain(text, field.json_name)) is not None:
            raise error
        return self.decode(holder, b'{"%s":%s}' % (field.json_name.encode(), text))

    def encode(self, message: Message, how: Print) -> bytes:
        """Writes a message; what cannot be written is the back end's fault."""
        try:
            return message.to_json(
                registry=self.registry,
                always_emit_implicit=how.emit_defaults,
                use_proto_field_name=how.proto_names,
                print_enums_as_ints=how.enum_numbers,
            ).encode()
        except (ValueError, TypeError) as error:
            raise internal("the reply cannot be written as JSON") from error

    def to_value(self, message: Message, how: Print) -> Any:
        """Like `encode`, as Python values."""
        try:
            return message_to_json_value(
                message,
                registry=self.registry,
                always_emit_implicit=how.emit_defaults,
                use_proto_field_name=how.proto_names,
                print_enums_as_ints=how.enum_numbers,
            )
        except (ValueError, TypeError) as error:
            raise internal("the reply cannot be written as JSON") from error

    def _from_value(self, message: DescMessage, value: Any) -> Message:
        try:
            return message_from_json_value(message.type, value, registry=self.registry)
        except (ValueError, TypeError, OverflowError, RecursionError):
            raise self._located(message, value) from None

    def _scanned(self, message: DescMessage, text: bytes) -> Any:
        """Parses and scans; in a lenient codec, unknown fields are taken out of what it returns."""
        value = parse_unique(text)
        if not is_opaque(message):
            try:
                self._scan(message, value, 1)
            except Refused as refused:
                raise refused.as_error() from None
        return value

    def _members_of(self, message: DescMessage) -> dict[str, _Member]:
        members = self._members.get(message.type_name)
        if members is None:
            members = {}
            for field in message.fields:
                members[field.name] = members[field.json_name] = _Member(field)
            self._members[message.type_name] = members
        return members

    def _is_simple(self, message: DescMessage) -> bool:
        """Tells of a type that its text alone can show what the scan looks for; found out once for each type."""
        known = self._simple.get(message.type_name)
        if known is None:
            known = self._simple[message.type_name] = all(map(_has_simple_fields, _reachable(message)))
        return known

    def _scan(self, message: DescMessage, value: Any, depth: int) -> None:
        if type(value) is not dict:
            return  # of a wrong type, which the codec says
        if depth > MAX_DEPTH:
            raise Refused(f"objects are nested deeper than {MAX_DEPTH}")
        members = self._members_of(message)
        chosen: dict[str, str] = {}
        for key in tuple(value) if self.ignore_unknown else value:
            member = members.get(key)
            if member is None:
                self._unknown(value, key)
                continue
            item = value[key]
            if member.field.name != member.field.json_name:
                _refuse_both_spellings(member.field, key, value)
            if member.oneof is not None and item is not None:
                other = chosen.setdefault(member.oneof.name, key)
                if other != key:
                    raise Refused(f"excludes {other}: both belong to {member.oneof.name}", member.field.json_name)
            if item is not None:
                try:
                    self._scan_member(member, item, depth)
                except Refused as refused:
                    refused.path.insert(0, member.field.json_name)
                    raise

    def _unknown(self, value: dict[str, Any], key: str) -> None:
        if self.ignore_unknown:
            del value[key]
        elif not (key.startswith("[") and key.endswith("]")):  # an extension; the codec knows which ones exist
            raise Refused("is not a field of this message", key)

    def _scan_member(self, member: _Member, item: Any, depth: int) -> None:
        if member.has_integer_keys and isinstance(item, dict):
            for key in item:
                _check_integer(key, f'["{key}"]')
        if member.child is None and not member.is_integer:
            return
        for label, element in _elements(member, item):
            if member.child is None:
                _check_integer(element, label)
                continue
            try:
                self._scan(member.child, element, depth + 1)
            except Refused as refused:
                if label:
                    refused.path.insert(0, label)
                raise

    def _diagnosis(self, message: DescMessage, text: bytes, error: Exception) -> EdgeError:
        """Says where a text went wrong that the codec refused."""
        if isinstance(error, RecursionError):
            return too_deep()
        if isinstance(error, json.JSONDecodeError):
            return explain(text) or not_json()
        try:
            value = self._scanned(message, text)
        except EdgeError as found:
            return found
        return self._located(message, value)

    def _located(self, message: DescMessage, value: Any) -> EdgeError:
        refused = self._locate(message, value)
        return refused.as_error() if refused else invalid_argument(f"the body is not a valid {message.name}")

    def _locate(self, message: DescMessage, value: Any) -> Refused | None:
        """Finds the first part that the codec refuses on its own: it is asked, never second-guessed."""
        if self._takes(message, value):
            return None
        if not isinstance(value, dict) or is_opaque(message):
            return Refused(f"must be {_TYPE_WANTS.get(message.type_name, 'an object')}")
        for key, item in value.items():
            member = self._members_of(message).get(key)
            if member is not None and not self._takes(message, {key: item}):
                return self._locate_member(message, member, item)
        return None

    def _locate_member(self, message: DescMessage, member: _Member, item: Any) -> Refused:
        key = member.field.json_name
        if (member.is_list and not isinstance(item, list)) or (member.is_map and not isinstance(item, dict)):
            return Refused("must be a list" if member.is_list else "must be an object", key)
        for label, element in _elements(member, item):
            alone = [element] if member.is_list else {label[2:-2]: element} if member.is_map else element
            if self._takes(message, {key: alone}):
                continue
            path = [key, label] if label else [key]
            if element is None:
                return Refused("must not be null", *path)
            inner = self._locate(member.child, element) if member.child is not None else None
            if inner is not None:
                inner.path[:0] = path
                return inner
            return Refused(f"must be {_wants(member.field)}", *path)
        return Refused(f"must be {_wants(member.field)}", key)

    def _takes(self, message: DescMessage, value: Any) -> bool:
        try:
            message_from_json_value(message.type, value, registry=self.registry)
        except (ValueError, TypeError, OverflowError, RecursionError):
            return False
        return True


def _reachable(message: DescMessage) -> list[DescMessage]:
    """A type and all types of its fields, of theirs, and so on."""
    found = {message.type_name: message}
    left = [message]
    while left:
        for field in left.pop().fields:
            element = field_element(field)
            if isinstance(element, DescMessage) and element.type_name not in found:
                found[element.type_name] = element
                left.append(element)
    return list(found.values())


def _has_simple_fields(message: DescMessage) -> bool:
    """No oneof whose members exclude each other, no Any, and no second spelling without a `_` to show it."""
    if is_opaque(message):
        return message.type_name != "google.protobuf.Any"
    return not message.oneofs and all(
        field.name == field.json_name or "_" in field.name + field.json_name for field in message.fields
    )


def _elements(member: _Member, item: Any) -> list[tuple[str, Any]]:
    """A field's single values, each with what its path adds to the field's name."""
    if member.is_list:
        return [(f"[{index}]", element) for index, element in enumerate(item)] if isinstance(item, list) else []
    if member.is_map:
        return [(f'["{key}"]', element) for key, element in item.items()] if isinstance(item, dict) else []
    return [("", item)]


def _wants(field: DescField) -> str:
    element = field_element(field)
    if isinstance(element, ScalarType):
        return _SCALAR_WANTS[element]
    if isinstance(element, DescMessage):
        return _TYPE_WANTS.get(element.type_name, f"a valid {element.name}")
    names = [value.name for value in element.values]
    return "one of " + ", ".join(names[:20]) + (", …" if len(names) > 20 else "")


def _check_integer(value: Any, label: str) -> None:
    """Refuses the text of an integer that JSON would not write so."""
    if type(value) is str and not _INTEGER_TEXT.fullmatch(value):
        raise Refused("must be an integer", *([label] if label else []))


def _refuse_both_spellings(field: DescField, key: str, value: dict[str, Any]) -> None:
    other = field.json_name if key == field.name else field.name
    if other in value:
        raise Refused(f"occurs twice: as {field.json_name} and as {field.name}", field.json_name)
