"""ProtoJSON, strictly: decodes with protobuf-py's Rust codec, and rejects the errors that it accepts.

The codec is right about types, ranges, well-known types, UTF-8, surrogates and trailing data. It overflows its stack on
deep nesting, so depth is checked first. It accepts duplicate keys, both spellings of one field, two members of one
oneof, and NUL; and for an unknown field it names the type rather than the path. `json_strictness` finds those.
"""

import json
from dataclasses import dataclass
from typing import Any

from protobuf import (
    DescField,
    DescMessage,
    Message,
    Registry,
    message_from_json_value,
    message_to_json_value,
)

from edge_gateway.errors import EdgeError, internal
from edge_gateway.json.field_index import FieldIndex
from edge_gateway.json.float_rounding import round_floats
from edge_gateway.json.json_diagnostics import JsonDiagnostics
from edge_gateway.json.json_parsing import (
    JsonViolation,
    check_depth,
    explain,
    is_json,
    is_plain,
    not_json,
    parse_unique,
    too_deep,
)
from edge_gateway.json.json_strictness import StrictnessCheck


@dataclass(frozen=True, slots=True)
class JsonFormat:
    """The form of a reply's JSON; docs/edge.md describes the parameters that choose it."""

    emit_defaults: bool = True
    proto_names: bool = False
    enum_numbers: bool = False
    pretty: bool = False


class JsonCodec:
    """Reads and writes the messages of one registry."""

    def __init__(self, registry: Registry, *, ignore_unknown: bool = False) -> None:
        self.registry = registry
        self.ignore_unknown = ignore_unknown
        self._fields = FieldIndex()
        self._strictness = StrictnessCheck(self._fields, ignore_unknown=ignore_unknown)
        self._diagnostics = JsonDiagnostics(registry, self._fields)

    def decode(self, message: DescMessage, text: bytes) -> Message:
        """Decode a message, or raise EdgeError 400 with the path of the invalid field."""
        check_depth(text)
        try:
            decoded = message.type.from_json(text, registry=self.registry, ignore_unknown_fields=self.ignore_unknown)
        except OverflowError:
            value = self._checked(message, text)
            round_floats(self._fields, message, value)
            return self._from_value(message, value)
        except (ValueError, TypeError, RecursionError) as error:
            raise self._diagnosis(message, text, error) from None
        if self.ignore_unknown:
            # The codec would ignore unknown enum names, too: so decode the value without its unknown fields strictly.
            return self._from_value(message, self._checked(message, text))
        if not (self._fields.are_simple(message) and is_plain(text)):
            self._checked(message, text)
        return decoded

    def decode_field(self, message: DescMessage, field: DescField, text: bytes) -> Message:
        """Decode one field's value, and return a message in which only that field is set; raise EdgeError 400."""
        check_depth(text)
        # Require one whole value, so that the text cannot close the braces below.
        if not is_json(text) and (error := explain(text, field.json_name)) is not None:
            raise error
        return self.decode(message, b'{"%s":%s}' % (field.json_name.encode(), text))

    def encode(self, message: Message, fmt: JsonFormat) -> bytes:
        """Encode a message; raise EdgeError 500 if it cannot be encoded, which is the back end's fault."""
        try:
            return message.to_json(
                registry=self.registry,
                always_emit_implicit=fmt.emit_defaults,
                use_proto_field_name=fmt.proto_names,
                print_enums_as_ints=fmt.enum_numbers,
            ).encode()
        except (ValueError, TypeError, RecursionError) as error:
            raise internal("the reply cannot be written as JSON") from error

    def to_value(self, message: Message, fmt: JsonFormat) -> Any:
        """Encode a message as Python values."""
        try:
            return message_to_json_value(
                message,
                registry=self.registry,
                always_emit_implicit=fmt.emit_defaults,
                use_proto_field_name=fmt.proto_names,
                print_enums_as_ints=fmt.enum_numbers,
            )
        except (ValueError, TypeError, RecursionError) as error:
            raise internal("the reply cannot be written as JSON") from error

    def _from_value(self, message: DescMessage, value: Any) -> Message:
        try:
            return message_from_json_value(message.type, value, registry=self.registry)
        except (ValueError, TypeError, OverflowError, RecursionError):
            raise self._diagnostics.diagnose(message, value) from None

    def _checked(self, message: DescMessage, text: bytes) -> Any:
        """Parse and check a text; return it without unknown fields if they are ignored."""
        value = parse_unique(text)
        try:
            self._strictness.check(message, value)
        except JsonViolation as violation:
            raise violation.as_error() from None
        return value

    def _diagnosis(self, message: DescMessage, text: bytes, error: Exception) -> EdgeError:
        """Return the error of a text that the codec rejected."""
        if isinstance(error, RecursionError):
            return too_deep()
        if isinstance(error, json.JSONDecodeError):
            return explain(text) or not_json()
        try:
            value = self._checked(message, text)
        except EdgeError as found:
            return found
        return self._diagnostics.diagnose(message, value)
