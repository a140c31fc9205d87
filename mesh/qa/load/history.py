"""The history of requests: one line of JSON for each, with its outcome and what its reply says.

`ok` was acknowledged, `fail` was rejected and must have had no effect, `unknown` may have had one. `shopmesh verify
--history` compares it with the databases.
"""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self, TextIO

from mesh.qa.load.observations import observed
from mesh.qa.shop_client import OutcomeUnknown, RequestRejected

Outcome = Literal["ok", "fail", "unknown"]


class History:
    """Writes the lines and counts the outcomes."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._next = 1
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)
        self.outcomes: defaultdict[str, Counter[Outcome]] = defaultdict(Counter)
        self.reasons: Counter[str] = Counter()
        #: The states of orders in the replies.
        self.orders: Counter[str] = Counter()
        #: What the shoppers have seen happen: parcels that came back, refunds, sagas that were parked.
        self.seen: Counter[str] = Counter()

    @classmethod
    @contextmanager
    def create(cls, path: Path) -> Iterator[Self]:
        """Open a new history in the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", buffering=1) as file:
            yield cls(file)

    @property
    def operations(self) -> int:
        """The number of requests."""
        return sum(map(len, self.seconds.values()))

    async def record(
        self, kind: str, request: Awaitable[dict[str, Any]], key: str = "", *, session: str = "", order_id: str = ""
    ) -> dict[str, Any]:
        """Await the request, and write its outcome. Raises what the request raises.

        The requests of a `session` follow each other; `order_id` is the order that is requested.
        """
        operation, self._next = self._next, self._next + 1
        line: dict[str, Any] = {"op": operation, "kind": kind, "key": key, "session": session, "invoke": time.time()}
        line |= {"order_id": order_id} if order_id else {}
        began = time.perf_counter()
        outcome: Outcome = "unknown"
        try:
            reply = await request
            outcome = "ok"
            line |= observed(reply)
        except RequestRejected as rejection:
            outcome = "fail"
            line["reason"] = rejection.reason or f"HTTP {rejection.status}"
            raise
        except OutcomeUnknown as unknown:
            line["reason"] = str(unknown)
            raise
        finally:
            self._write(line | {"complete": time.time(), "outcome": outcome}, time.perf_counter() - began)
        return reply

    def mark(self, kind: str, what: str) -> None:
        """Write a line about something that is no request: a fault, or its end."""
        operation, self._next = self._next, self._next + 1
        now = time.time()
        line = {"op": operation, "kind": kind, "reason": what, "invoke": now, "complete": now, "outcome": "ok"}
        self._file.write(json.dumps(line) + "\n")

    def _write(self, line: dict[str, Any], seconds: float) -> None:
        kind, outcome = line["kind"], line["outcome"]
        self._file.write(json.dumps(line) + "\n")
        self.seconds[kind].append(seconds)
        self.outcomes[kind][outcome] += 1
        if reason := line.get("reason"):
            self.reasons[reason] += 1
        if kind == "order" and "state" in line:
            self.orders[line["state"]] += 1
