"""Reads the metrics of processes, and stores what was read, so that alerts are about the last minutes."""

import gzip
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TypeAlias

from mesh.stack.state import ProcessRecord

_SECONDS = 3.0
#: How long a scrape is stored: the window of the alerts.
WINDOW = 600.0

#: The metrics of each process, in the text format of Prometheus, by its name and pid.
Scrape: TypeAlias = dict[str, str]


def scrape(processes: Sequence[ProcessRecord]) -> Scrape:
    """Return the metrics of every process that has some and answers."""
    targets = [one for one in processes if one.metrics]
    if not targets:
        return {}
    with ThreadPoolExecutor(len(targets)) as threads:
        found = zip(targets, threads.map(_read, targets), strict=True)
        return {key(process): text for process, text in found if text is not None}


def key(process: ProcessRecord) -> str:
    """Return the name of a process in a scrape: a restarted one is another, whose counters begin at 0."""
    return f"{process.name} {process.pid}"


def _read(process: ProcessRecord) -> str | None:
    connection = HTTPConnection(process.metrics, timeout=_SECONDS)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()


class Scrapes:
    """The scrapes of the last minutes, each a file of the folder, named by its time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, found: Scrape, now: float | None = None) -> None:
        """Store a scrape, and delete those that are too old. `now` is in seconds since 1970."""
        now = time.time() if now is None else now
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for path in self._paths():
            if _time_of(path) < now - WINDOW:
                path.unlink(missing_ok=True)
        part = self._folder / "new"
        part.write_bytes(gzip.compress(json.dumps(found).encode(), 1))
        part.replace(self._folder / f"{now:.3f}.json.gz")

    def oldest(self, now: float | None = None) -> Scrape:
        """Return the oldest scrape of the window; an empty one when there is none."""
        now = time.time() if now is None else now
        for path in self._paths():
            if _time_of(path) >= now - WINDOW:
                with suppress(FileNotFoundError):  # the supervisor has just deleted it
                    scrape: Scrape = json.loads(gzip.decompress(path.read_bytes()))
                    return scrape
        return {}

    def clear(self) -> None:
        """Delete what an earlier run has stored."""
        for path in self._paths():
            path.unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob("*.json.gz"), key=_time_of)


def _time_of(path: Path) -> float:
    return float(path.name.removesuffix(".json.gz"))
