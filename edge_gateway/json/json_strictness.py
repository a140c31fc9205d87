"""Looks in parsed JSON for what the codec lets pass: unknown fields by their path, both spellings of one field, two
members of one oneof, and integers written as JSON does not write them.
"""

import re
from typing import Any

from protobuf import DescField, DescMessage

from edge_gateway.json.field_index import FieldIndex, IndexedField
from edge_gateway.json.json_parsing import JsonViolation
from edge_gateway.routing.field_types import is_opaque

_INTEGER_TEXT = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


class StrictnessCheck:
    """Scans the values of one registry's messages; a lenient one takes unknown fields out of them."""

    def __init__(self, members: FieldIndex, *, ignore_unknown: bool) -> None:
        self._members = members
        self._ignore_unknown = ignore_unknown

    def scan(self, message: DescMessage, value: Any) -> None:
        """Raises JsonViolation for the first thing that is found."""
        if not is_opaque(message):
            self._scan(message, value)

    def _scan(self, message: DescMessage, value: Any) -> None:
        if type(value) is not dict:
            return  # of a wrong type, which the codec says
        members = self._members.of(message)
        chosen: dict[str, str] = {}
        for key in tuple(value) if self._ignore_unknown else value:
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
                    raise JsonViolation(f"excludes {other}: both belong to {member.oneof.name}", member.field.json_name)
            if item is not None:
                try:
                    self._scan_member(member, item)
                except JsonViolation as refused:
                    refused.path.insert(0, member.field.json_name)
                    raise

    def _unknown(self, value: dict[str, Any], key: str) -> None:
        if self._ignore_unknown:
            del value[key]
        elif not (key.startswith("[") and key.endswith("]")):  # an extension; the codec knows which ones exist
            raise JsonViolation("is not a field of this message", key)

    def _scan_member(self, member: IndexedField, item: Any) -> None:
        if member.has_integer_keys and isinstance(item, dict):
            for key in item:
                _check_integer(key, f'["{key}"]')
        if member.child is None and not member.is_integer:
            return
        for label, element in member.elements(item):
            if member.child is None:
                _check_integer(element, label)
                continue
            try:
                self._scan(member.child, element)
            except JsonViolation as refused:
                if label:
                    refused.path.insert(0, label)
                raise


def _check_integer(value: Any, label: str) -> None:
    """Refuses the text of an integer that JSON would not write so."""
    if type(value) is str and not _INTEGER_TEXT.fullmatch(value):
        raise JsonViolation("must be an integer", *([label] if label else []))


def _refuse_both_spellings(field: DescField, key: str, value: dict[str, Any]) -> None:
    other = field.json_name if key == field.name else field.name
    if other in value:
        raise JsonViolation(f"occurs twice: as {field.json_name} and as {field.name}", field.json_name)
