"""Admission: how many calls a process serves at the same time. Streams have a budget of their own.

A rejected call gets OVERLOADED with a time to retry; health checks and reflection are not counted.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from chassis.context import Call
from chassis.settings import Settings
from shop.chassis.v1 import chassis_errors
from shop.contract import EDGE

#: The part of the unary budget that calls from outside may fill; the rest is for the services of the mesh.
_OUTSIDE_SHARE = 0.8


class Admission:
    """Counts the calls in progress of one process."""

    def __init__(self, settings: Settings) -> None:
        """Begin with no calls in progress."""
        self._max_calls = settings.max_concurrent_rpcs
        self._max_calls_from_outside = max(1, round(settings.max_concurrent_rpcs * _OUTSIDE_SHARE))
        self._max_streams = settings.max_streams
        self._max_client_streams = settings.max_client_streams
        self._calls = 0
        self._streams = 0
        self._client_streams: Counter[str] = Counter()

    def begin_unary(self, call: Call) -> None:
        """Count a unary call until `end_unary`; raises Overloaded when the budget of its caller is used up."""
        if self._calls >= (self._max_calls_from_outside if call.caller == EDGE else self._max_calls):
            raise chassis_errors.Overloaded
        self._calls += 1

    def end_unary(self) -> None:
        """Count the end of a call that `begin_unary` counted."""
        self._calls -= 1

    @contextmanager
    def stream(self, call: Call) -> Iterator[None]:
        """Count a stream during the block; raises Overloaded when the process or the client has too many."""
        client = call.client
        if self._streams >= self._max_streams or self._client_streams[client] >= self._max_client_streams:
            raise chassis_errors.Overloaded
        self._streams += 1
        self._client_streams[client] += 1
        try:
            yield
        finally:
            self._streams -= 1
            self._client_streams[client] -= 1
            if not self._client_streams[client]:
                del self._client_streams[client]
