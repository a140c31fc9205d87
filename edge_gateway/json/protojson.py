"""ProtoJSON, strictly: protobuf-py's Rust codec does the work, a scan refuses what it lets through.

The codec is right about types, ranges, well-known types, UTF-8, surrogates and trailing data. It overflows its stack on
deep nesting, so depth is checked first. It accepts duplicate keys, both spellings of one field, two members of one
oneof, and NUL; and it names the type in which an unknown field stands rather than the path to it. The scan finds those.
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
        self._members = FieldIndex()
        self._scanner = StrictnessCheck(self._members, ignore_unknown=ignore_unknown)
        self._faults = JsonDiagnostics(registry, self._members)

    def decode(self, message: DescMessage, text: bytes) -> Message:
        """Reads a message, or raises EdgeError 400 with the path of the field at fault."""
        check_depth(text)
        try:
            decoded = message.type.from_json(text, registry=self.registry, ignore_unknown_fields=self.ignore_unknown)
        except OverflowError:
            value = self._scanned(message, text)
            round_floats(self._members, message, value)
            return self._from_value(message, value)
        except (ValueError, TypeError, RecursionError) as error:
            raise self._diagnosis(message, text, error) from None
        if self.ignore_unknown:
            # To the codec, ignoring unknown fields means ignoring unknown enum names too; so it reads again.
            return self._from_value(message, self._scanned(message, text))
        if not (self._members.are_simple(message) and is_plain(text)):
            self._scanned(message, text)
        return decoded

    def decode_field(self, holder: DescMessage, field: DescField, text: bytes) -> Message:
        """Reads one field's value, and returns a message of `holder` in which only that field is set."""
        check_depth(text)
        # One whole value, so that the text below cannot break out of its braces.
        if not is_json(text) and (error := explain(text, field.json_name)) is not None:
            raise error
        return self.decode(holder, b'{"%s":%s}' % (field.json_name.encode(), text))

    def encode(self, message: Message, fmt: JsonFormat) -> bytes:
        """Writes a message; what cannot be written is the back end's fault."""
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
        """Like `encode`, as Python values."""
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
            raise self._faults.find(message, value) from None

    def _scanned(self, message: DescMessage, text: bytes) -> Any:
        """Parses and scans; in a lenient codec, unknown fields are taken out of what it returns."""
        value = parse_unique(text)
        try:
            self._scanner.scan(message, value)
        except JsonViolation as refused:
            raise refused.as_error() from None
        return value

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
        return self._faults.find(message, value)
