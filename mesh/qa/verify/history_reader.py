"""Copies the history that `shopmesh load` wrote, line by line."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from mesh.errors import StackError
from mesh.qa.verify.copies import Copies, Table

_LINES = 5_000
_OPERATION = ("op", "kind", "key", "outcome", "order_id", "state", "reason")


def copy_history(path: Path, copies: Copies) -> None:
    """Copy the requests of a history. Raises StackError when it cannot be read."""
    try:
        copies.insert("operation", Table(_OPERATION, []))
        history = _read(path)
        while lines := list(islice(history, _LINES)):
            copies.insert("operation", Table(_OPERATION, [[line.get(name) for name in _OPERATION] for line in lines]))
    except (OSError, ValueError, AttributeError) as error:
        raise StackError(f"the history {path} cannot be read: {error}") from error


def _read(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
