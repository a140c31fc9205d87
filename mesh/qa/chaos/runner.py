"""Runs a load and the faults of a schedule, then waits for every order to end, and verifies the shop."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chassis.cancellation import cancel_and_wait
from mesh.errors import StackError
from mesh.qa.chaos.injection import Injection
from mesh.qa.chaos.schedule import Fault, Step, schedule, targets_of
from mesh.qa.load.history import History
from mesh.qa.load.mixes import Mix
from mesh.qa.load.runner import Credentials, Plan, run_load
from mesh.qa.verify.copies import Finding
from mesh.qa.verify.sources import sources_of
from mesh.qa.verify.verifier import verify
from mesh.stack.state import Record, State

_SAMPLE_SECONDS = 0.1
_POLL_SECONDS = 0.02
_SERVED_SECONDS = 120.0
#: The longest load, which ends with the last fault.
_LOAD_SECONDS = 4 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosPlan:
    """The size of a run."""

    seconds: float
    seed: int
    concurrency: int
    #: The file for the history of requests.
    history: Path
    only: Sequence[Fault] = ()
    #: Seconds that orders and events have to end after the load.
    wait: float = 90.0


@dataclass(frozen=True, slots=True)
class Injected:
    """A fault that was injected, with times in seconds since its beginning."""

    at: float
    step: Step
    #: When its target was ready again.
    ready: float
    #: When the shop acknowledged the first order after that.
    served: float

    def as_json(self) -> dict[str, Any]:
        """Return the fault as JSON."""
        times = {"at": self.at, "ready_seconds": self.ready, "served_seconds": self.served}
        return {"fault": self.step.fault, "target": self.step.target} | {k: round(v, 2) for k, v in times.items()}


async def run_chaos(
    state: State,
    record: Record,
    credentials: Credentials,
    plan: ChaosPlan,
    on_fault: Callable[[Injected], None] = lambda _: None,
) -> dict[str, Any]:
    """Run the load and the faults, and return the report. Raises StackError."""
    injection = Injection(state, record)
    steps = schedule(plan.seed, targets_of([one.name for one in record.processes]), plan.only)
    load_plan = Plan(mix=Mix.trouble, concurrency=plan.concurrency, seconds=_LOAD_SECONDS, seed=plan.seed)
    stop = asyncio.Event()
    unavailable: Counter[str] = Counter()
    with History.create(plan.history) as history:
        load = asyncio.create_task(run_load(record.edge, credentials, load_plan, history, stop))
        sampling = asyncio.create_task(_sample(injection, unavailable))
        try:
            run = _Run(injection, history, load, on_fault)
            await run.execute(steps, plan.seconds)
            stop.set()
            summary = await load
        finally:
            await cancel_and_wait(sampling)
            load.cancel()
            await asyncio.gather(load, return_exceptions=True)
    findings = await verify(sources_of(state, record), plan.wait, plan.history)
    return _report(plan, run.injected, unavailable, summary, findings)


class _Run:
    """The faults of one run, one after the other."""

    def __init__(
        self, injection: Injection, history: History, load: asyncio.Task[Any], on_fault: Callable[[Injected], None]
    ) -> None:
        self._injection = injection
        self._history = history
        self._load = load
        self._on_fault = on_fault
        self._clock = asyncio.get_running_loop().time
        self.injected: list[Injected] = []

    async def execute(self, steps: Any, seconds: float) -> None:
        """Inject faults, at least one, for so many seconds."""
        await self._until_served()
        began = self._clock()
        for step in steps:
            await asyncio.sleep(step.pause)
            await self._inject(step, self._clock() - began)
            if self._clock() - began >= seconds or self._load.done():
                return

    async def _inject(self, step: Step, at: float) -> None:
        began = self._clock()
        self._history.mark("fault", f"{step.fault} {step.target}")
        try:
            await self._injection.inject(step)
        finally:
            self._history.mark("heal", f"{step.fault} {step.target}")
        ready = self._clock() - began
        await self._until_served()
        self.injected.append(Injected(at, step, ready, self._clock() - began))
        self._on_fault(self.injected[-1])

    async def _until_served(self) -> None:
        """Wait until the shop acknowledges one more order, or the load has ended."""
        before = self._history.outcomes["order"]["ok"]
        try:
            async with asyncio.timeout(_SERVED_SECONDS):
                while self._history.outcomes["order"]["ok"] == before and not self._load.done():  # noqa: ASYNC110
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise StackError(f"no order was acknowledged for {_SERVED_SECONDS:g} s") from None


async def _sample(injection: Injection, unavailable: Counter[str]) -> None:
    """Count for how many tenths of a second each process was not ready."""
    while True:
        unavailable.update(one.name for one in injection.processes() if one.state != "ready")
        await asyncio.sleep(_SAMPLE_SECONDS)


def _report(
    plan: ChaosPlan,
    injected: Sequence[Injected],
    unavailable: Counter[str],
    load: dict[str, Any],
    findings: Sequence[Finding],
) -> dict[str, Any]:
    violated = [finding.as_json() for finding in findings if finding.rows]
    times = defaultdict(list)
    for one in injected:
        times[one.step.fault].append(one.served)
    return {
        "ok": not violated,
        "seed": plan.seed,
        "seconds": plan.seconds,
        "only": list(plan.only),
        "faults": [one.as_json() for one in injected],
        "recovery": {
            fault: {"count": len(served), "longest_seconds": round(max(served), 2)} for fault, served in times.items()
        },
        "unavailable_seconds": {name: round(count * _SAMPLE_SECONDS, 1) for name, count in unavailable.most_common()},
        "load": load,
        "invariants": len(findings),
        "violated": violated,
    }
