"""A circuit breaker: while an API does not answer, calls to it end at once, except for a probe now and then."""

import logging
import random
import time
from collections.abc import Callable
from datetime import timedelta

from chassis.domain.backoff import backoff
from chassis.metrics import BREAKER_OPEN

log = logging.getLogger(__name__)

#: Failures in a row that open the circuit.
FAILURES = 5
_FIRST_PAUSE = timedelta(seconds=1)
_LONGEST_PAUSE = timedelta(seconds=10)


class Breaker:
    """The circuit of one API in this process: closed, open, or half-open with one probe at a time."""

    def __init__(self, name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Start closed; `name` is that of the API, for the log, and `clock` returns seconds."""
        self._name = name
        self._clock = clock
        self._failures = 0
        #: How often it has opened without a success between.
        self._openings = 0
        self._probe_at = 0.0
        self._is_probing = False
        self._on_close: list[Callable[[], object]] = []

    @property
    def is_closed(self) -> bool:
        """Return whether every call is admitted."""
        return not self._openings

    @property
    def admits(self) -> bool:
        """Return whether a call would be admitted now."""
        return self.is_closed or (not self._is_probing and self._clock() >= self._probe_at)

    def on_close(self, callback: Callable[[], object]) -> None:
        """Call `callback` whenever the API answers again."""
        self._on_close.append(callback)

    def admit(self) -> bool:
        """Return whether a call may be made; it then ends with `succeeded`, `failed` or `released`."""
        if not self.admits:
            return False
        self._is_probing = not self.is_closed
        return True

    def succeeded(self) -> None:
        """Close the circuit: the API has executed a call."""
        was_open = not self.is_closed
        self._failures, self._openings, self._is_probing = 0, 0, False
        if was_open:
            BREAKER_OPEN.labels(self._name).set(0)
            log.info("external API answers again", extra={"api": self._name})
            for callback in self._on_close:
                callback()

    def failed(self) -> None:
        """Count a call without an outcome; open the circuit after several in a row, or after a failed probe."""
        self._failures += 1
        if self._failures < FAILURES or (not self.is_closed and not self._is_probing):
            return
        self._openings += 1
        self._is_probing = False
        pause = backoff(self._openings, _FIRST_PAUSE, _LONGEST_PAUSE, random.random())  # noqa: S311  spreads probes
        self._probe_at = self._clock() + pause.total_seconds()
        BREAKER_OPEN.labels(self._name).set(1)
        if self._openings == 1:
            log.error("external API does not answer", extra={"api": self._name, "seconds": pause.total_seconds()})

    def released(self) -> None:
        """End a call that says nothing about the API's ability to execute others; the next one may be the probe."""
        self._is_probing = False
