"""Ends the processes of a stack whose supervisor was killed; they are identified by pid and start time, not by name."""

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
    """Kill every process of the record that still runs, and delete its sockets; return the names of those killed."""
    orphans = [one for one in record.processes if is_alive(one)]
    for one in orphans:
        assert one.pid is not None
        with suppress(ProcessLookupError):
            os.killpg(one.pid, signal.SIGKILL)
    until = time.monotonic() + _GONE_SECONDS
    while any(map(is_alive, orphans)) and time.monotonic() < until:
        time.sleep(0.02)
    shutil.rmtree(Path(record.run), ignore_errors=True)
    return [one.name for one in orphans]


def is_alive(one: ProcessRecord) -> bool:
    """Return whether the recorded process still runs, and its pid was not reused."""
    return one.pid is not None and one.started is not None and started_at(one.pid) == one.started
