"""Reads and validates the fields of a request body; an error names the field."""

import re
from collections.abc import Mapping
from typing import Any

from mesh.simulators.errors import ApiError

IDENTIFIER = r"[A-Za-z0-9_.:-]{1,100}"
TEXT = r"[^\x00-\x1f\x7f]{1,200}"


class Fields:
    """A JSON object whose fields are read one by one; every method raises ApiError for an invalid field."""

    def __init__(self, values: Mapping[str, Any], path: str = "") -> None:
        self._unread = dict(values)
        self._path = path

    def text(self, name: str, pattern: str = TEXT) -> str:
        """Return a required text that matches the pattern."""
        value = self._unread.pop(name, None)
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise self._invalid(name)
        return value

    def optional_text(self, name: str) -> str | None:
        """Return a text, or None when it is absent or null."""
        if self._unread.get(name) is None:
            self._unread.pop(name, None)
            return None
        return self.text(name)

    def integer(self, name: str, low: int, high: int, default: int | None = None) -> int:
        """Return an integer of the range."""
        value = self._unread.pop(name, default)
        if type(value) is not int or not low <= value <= high:  # bool is a subclass of int
            raise self._invalid(name)
        return value

    def share(self, name: str) -> float:
        """Return a number from 0 to 1; 0 when it is absent."""
        value = self._unread.pop(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise self._invalid(name)
        return float(value)

    def flag(self, name: str) -> bool:
        """Return a boolean; False when it is absent."""
        value = self._unread.pop(name, False)
        if not isinstance(value, bool):
            raise self._invalid(name)
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts; empty when it is absent."""
        value = self._unread.pop(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._invalid(name)
        return tuple(value)

    def object(self, name: str) -> "Fields":
        """Return a required nested object."""
        value = self._unread.pop(name, None)
        if not isinstance(value, dict):
            raise self._invalid(name)
        return Fields(value, f"{self._path}{name}.")

    def has(self, name: str) -> bool:
        """Return whether the field is present and not null."""
        return self._unread.get(name) is not None

    def end(self) -> None:
        """Raise ApiError for the first field that was not read."""
        for name in self._unread:
            raise ApiError(400, "unknown_field", "there is no such field", param=f"{self._path}{name}")

    def _invalid(self, name: str) -> ApiError:
        return ApiError(400, "invalid_field", "missing or invalid", param=f"{self._path}{name}")
