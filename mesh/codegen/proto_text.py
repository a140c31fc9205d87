"""Prints a file descriptor as .proto text, for a package that ships only its descriptor.

Supports what buf/validate/validate.proto uses: proto2, flat messages, oneofs, extensions.
"""

from collections.abc import Iterable, Iterator

from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.message import Message

_LABELS = {
    FieldDescriptorProto.LABEL_OPTIONAL: "optional ",
    FieldDescriptorProto.LABEL_REQUIRED: "required ",
    FieldDescriptorProto.LABEL_REPEATED: "repeated ",
}
_MAX_NUMBER = 2**29 - 1


def to_proto(file: FileDescriptorProto) -> str:
    """Return the source of `file` without comments; it compiles to the same descriptor."""
    return "\n".join(_file(file)) + "\n"


def _file(file: FileDescriptorProto) -> Iterator[str]:
    yield f'syntax = "{file.syntax or "proto2"}";'
    yield f"package {file.package};"
    yield from (f'import "{name}";' for name in file.dependency)
    yield from (f"option {option};" for option in _options(file.options))
    for message in file.message_type:
        yield from _message(message)
    for enum in file.enum_type:
        yield from _enum(enum)
    for extension in file.extension:
        yield f"extend {extension.extendee} {{ {_field(extension)} }}"


def _message(message: DescriptorProto) -> Iterator[str]:
    yield f"message {message.name} {{"
    yield from (f"option {option};" for option in _options(message.options))
    yield from (f"reserved {_range(r.start, r.end)};" for r in message.reserved_range)
    yield from (f'reserved "{name}";' for name in message.reserved_name)
    yield from (f"extensions {_range(r.start, r.end)};" for r in message.extension_range)
    oneof = None
    for field in message.field:
        inside = field.oneof_index if field.HasField("oneof_index") else None
        if inside != oneof:
            yield from ("}",) if oneof is not None else ()
            yield from (f"oneof {message.oneof_decl[inside].name} {{",) if inside is not None else ()
        yield _field(field, label=inside is None)
        oneof = inside
    yield from ("}",) if oneof is not None else ()
    yield "}"


def _enum(enum: EnumDescriptorProto) -> Iterator[str]:
    yield f"enum {enum.name} {{"
    yield from (f"option {option};" for option in _options(enum.options))
    for value in enum.value:
        yield f"{value.name} = {value.number}{_bracketed(_options(value.options))};"
    yield from (f"reserved {r.start} to {r.end};" for r in enum.reserved_range)
    yield from (f'reserved "{name}";' for name in enum.reserved_name)
    yield "}"


def _field(field: FieldDescriptorProto, *, label: bool = True) -> str:
    words = _LABELS[field.label] if label else ""
    kind = field.type_name or FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    return f"{words}{kind} {field.name} = {field.number}{_bracketed(_options(field.options))};"


def _options(options: Message) -> Iterator[str]:
    for option, value in options.ListFields():
        name = f"({option.full_name})" if option.is_extension else option.name
        for one in value if option.is_repeated else (value,):
            yield f"{name} = {_value(option, one)}"


def _value(option: FieldDescriptor, value: object) -> str:
    if isinstance(value, Message):
        return "{ " + text_format.MessageToString(value, as_one_line=True) + " }"
    writer = text_format.TextWriter(as_utf8=False)
    text_format.PrintFieldValue(option, value, writer)
    return writer.getvalue()


def _bracketed(options: Iterable[str]) -> str:
    listed = ", ".join(options)
    return f" [{listed}]" if listed else ""


def _range(start: int, end: int) -> str:
    last = "max" if end - 1 == _MAX_NUMBER else str(end - 1)
    return f"{start} to {last}"
