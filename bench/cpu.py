"""What a request costs: CPU microseconds of each process while a closed loop of callers runs.

CPU time counts only work, so ratios of it survive a machine that is busy with something else; requests a second do not.

    async with Meter({"postgres": pid}) as meter:
        run = await drive(call, waiting=64, seconds=3)
    meter.per_request(run.requests)
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Self

import psutil


@dataclass
class Run:
    """What a closed loop of callers saw."""

    requests: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds

    def percentile(self, percent: float) -> float:
        """Milliseconds that this share of the requests took at most."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * 1000

    def __iadd__(self, other: "Run") -> Self:
        self.requests += other.requests
        self.seconds += other.seconds
        self.latencies += other.latencies
        return self


async def drive(call: Callable[[], Awaitable[object]], *, waiting: int, seconds: float) -> Run:
    """Keep `waiting` calls in flight for `seconds`."""
    run = Run()
    clock = time.perf_counter
    began = clock()

    async def caller() -> None:
        while (sent := clock()) - began < seconds:
            await call()
            run.latencies.append(clock() - sent)

    await asyncio.gather(*(caller() for _ in range(waiting)))
    run.requests, run.seconds = len(run.latencies), clock() - began
    return run


class Meter:
    """Adds up the CPU time of processes, each with its children, over the blocks that it is entered for."""

    def __init__(self, processes: Mapping[str, int]) -> None:
        """`processes` are the roots by name; this process is always measured, as `load`."""
        self._pids = {**processes, "load": os.getpid()}
        self._own = {pid for name, pid in self._pids.items() if name != "load"}
        self.seconds = dict.fromkeys(self._pids, 0.0)

    def __enter__(self) -> Self:
        self._before = self._read()
        return self

    def __exit__(self, *_: object) -> None:
        after = self._read()
        for name in self.seconds:
            self.seconds[name] += after[name] - self._before[name]

    def per_request(self, requests: int) -> dict[str, float]:
        """Microseconds of each process for one request."""
        return {name: seconds / requests * 1e6 for name, seconds in self.seconds.items()}

    def _read(self) -> dict[str, float]:
        return {name: self._tree(pid) for name, pid in self._pids.items()}

    def _tree(self, pid: int) -> float:
        """User and system time of a process and of all below it, the dead included, as far as its parent waited."""
        process = psutil.Process(pid)
        below = [] if pid == os.getpid() else process.children(recursive=True)
        total = 0.0
        for one in (process, *below):
            try:
                times = one.cpu_times()
            except psutil.NoSuchProcess:
                continue  # its time is now among its parent's
            total += times.user + times.system
            if below:
                total += times.children_user + times.children_system
        return total


def table(head: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    """A table for people and Markdown alike."""
    cells = [head, *(tuple(f"{cell:,.0f}" if isinstance(cell, float) else str(cell) for cell in row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
