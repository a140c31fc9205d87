"""Removes what a stack left behind whose supervisor was killed. Processes are known by pid and start, never by name."""

import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

from mesh.stack.process import started_at
from mesh.stack.state import ProcessRecord, Record

_GONE_SECONDS = 10.0


def remove(record: Record) -> list[str]:
    """End every process of the record that still runs, and delete its sockets; the names of those that ran."""
    left = [one for one in record.processes if is_alive(one)]
    for one in left:
        assert one.pid is not None
        with suppress(ProcessLookupError):
            os.killpg(one.pid, signal.SIGKILL)
    until = time.monotonic() + _GONE_SECONDS
    while any(map(is_alive, left)) and time.monotonic() < until:
        time.sleep(0.02)
    shutil.rmtree(Path(record.run), ignore_errors=True)
    return [one.name for one in left]


def is_alive(one: ProcessRecord) -> bool:
    """Whether it is still the very process that was recorded."""
    return one.pid is not None and one.started is not None and started_at(one.pid) == one.started
