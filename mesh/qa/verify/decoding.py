"""Decodes the payloads of copied events into columns that checks can compare."""

from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.type.money_pb2 import Money

from mesh.qa.verify.checks import Copy
from shop.catalog.v1 import catalog_events_pb2
from shop.inventory.v1 import inventory_events_pb2

_MONEY = Money.DESCRIPTOR.full_name
_EVENTS = {
    kind.full_name: module
    for module in (catalog_events_pb2, inventory_events_pb2)
    for kind in module.DESCRIPTOR.message_types_by_name.values()
}


def columns_of(copy: Copy, selected: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of a copy: those that its query selects, without `payload`, and the fields of its message."""
    if not copy.message:
        return tuple(selected)
    descriptor = _class(copy.message).DESCRIPTOR
    fields = [field.name for field in _plain_fields(descriptor)]
    if copy.elements:
        fields += [field.name for field in _plain_fields(descriptor.fields_by_name[copy.elements].message_type)]
    return (*(name for name in selected if name != "payload"), *fields)


def decoder_of(copy: Copy, selected: Sequence[str]) -> Callable[[Sequence[Any]], list[tuple[Any, ...]]]:
    """Return a function from a selected row to the rows of the copy."""
    if not copy.message:
        return lambda row: [tuple(row)]
    kind = _class(copy.message)
    place = list(selected).index("payload")

    def decode(row: Sequence[Any]) -> list[tuple[Any, ...]]:
        message = kind.FromString(row[place])
        first = (*row[:place], *row[place + 1 :], *_values(message))
        if not copy.elements:
            return [first]
        return [(*first, *_values(element)) for element in getattr(message, copy.elements)]

    return decode


def _class(name: str) -> type[Message]:
    found: type[Message] = getattr(_EVENTS[name], name.rpartition(".")[2])
    return found


def _plain_fields(descriptor: Any) -> list[FieldDescriptor]:
    """Return the fields with one value: scalars and amounts."""
    return [
        field
        for field in descriptor.fields
        if not field.is_repeated
        and (field.message_type is None or field.message_type.full_name == Money.DESCRIPTOR.full_name)
    ]


def _values(message: Message) -> tuple[Any, ...]:
    return tuple(_value(getattr(message, field.name)) for field in _plain_fields(message.DESCRIPTOR))


def _value(value: Any) -> Any:
    return f"{value.units}.{value.nanos:09}" if isinstance(value, Money) else value
