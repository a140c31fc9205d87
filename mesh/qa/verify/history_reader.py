"""Copies the history that `shopmesh load` wrote, line by line."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from mesh.errors import StackError
from mesh.qa.verify.copies import Copies, Table

_LINES = 5_000
_OPERATION = (
    "op", "kind", "key", "session", "invoke", "complete", "outcome", "order_id", "state", "version", "user_id",
    "return_id", "shipment_id", "shipment_state", "reason",
)  # fmt: skip
_BOUGHT = ("op", "sku", "quantity", "unit_price")
_STOCK_READ = ("op", "sku", "location_id", "available")
_PRICE_CHANGE = ("op", "sku", "version")

Line = dict[str, Any]


def copy_history(path: Path, copies: Copies) -> None:
    """Copy the requests of a history. Raises StackError when it cannot be read."""
    try:
        _insert(copies, [])
        history = _read(path)
        while lines := list(islice(history, _LINES)):
            _insert(copies, lines)
    except (OSError, ValueError, AttributeError) as error:
        raise StackError(f"the history {path} cannot be read: {error}") from error


def _read(path: Path) -> Iterator[Line]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _insert(copies: Copies, lines: Sequence[Line]) -> None:
    """Add lines to the tables of requests, of what orders contain, of stock that was read and of prices."""
    acknowledged = [line for line in lines if line.get("outcome") == "ok"]
    orders = [line for line in acknowledged if line["kind"] == "order"]
    prices = [line for line in acknowledged if line["kind"] == "price"]
    copies.insert("operation", Table(_OPERATION, [[line.get(name) for name in _OPERATION] for line in lines]))
    copies.insert("bought", Table(_BOUGHT, [(one["op"], *line) for one in orders for line in one.get("lines", ())]))
    reads = [(one["op"], *level) for one in acknowledged for level in one.get("stock", ())]
    copies.insert("stock_read", Table(_STOCK_READ, reads))
    changes = [(one["op"], sku, one["version"]) for one in prices for sku in one.get("skus", ())]
    copies.insert("price_change", Table(_PRICE_CHANGE, changes))
