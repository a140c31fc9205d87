"""`shopmesh demo`: one purchase, step by step."""

import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NoReturn

import typer
import uvloop
from rich.text import Text

from mesh.cli.terminal import AsJson, StateDir, out, print_json, running_stack, state_in
from mesh.errors import StackError
from mesh.qa.demo.purchase import Purchase
from mesh.qa.demo.story import Chart, Line, Part
from mesh.qa.sample_data.people import staff
from mesh.qa.shop_client import OutcomeUnknown, RequestRejected, ShopApiClient, state
from mesh.qa.simulator_client import SimulatorClient
from mesh.stack.secrets import Secrets
from mesh.stack.state import Record

_WIDTH = 78
_BAR = 36
_DURATION_WIDTH = 10  # characters of a duration
_LONGEST_PAUSE = 0.002  # seconds between two steps that a chart shows


def demo(*, json: AsJson = False, state_dir: StateDir = None) -> None:
    """Place an order and follow it until it is paid and delivered. Exits with 1 when a step fails."""
    record = running_stack(state_dir)
    secrets = Secrets(state_in(state_dir))
    report = _JsonReport() if json else _TextReport()
    began = time.perf_counter()
    try:
        uvloop.run(_buy(record, secrets, report))
    except (StackError, RequestRejected, OutcomeUnknown) as error:
        report.fail(error if isinstance(error, StackError) else StackError(f"the shop replied: {error}"))
    report.end(time.perf_counter() - began)


async def _buy(record: Record, secrets: Secrets, report: "_TextReport | _JsonReport") -> None:
    payment_provider, courier = (SimulatorClient.of(record, secrets, name) for name in ("payment_provider", "courier"))
    async with ShopApiClient.open(record.edge) as anonymous:
        purchase = Purchase(anonymous, staff(secrets), payment_provider, courier)
        for step in purchase.steps():
            report.start_step(step.title)
            async for part in step.run():
                report.add(part)
        report.facts = {
            "order": purchase.order,
            "shipment": purchase.shipment,
            "payment": purchase.payment,
            "timeline": purchase.timeline,
        }


class _TextReport:
    """Prints the steps as text."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self._step = 0
        self._title = ""

    def start_step(self, title: str) -> None:
        self._step, self._title = self._step + 1, title
        out.print(f"[bold cyan]{self._step:2}  {title}[/]")

    def add(self, part: Part) -> None:
        match part:
            case Line(text, seconds):
                row = Text(f"    {text}")
                if seconds is not None:
                    row.truncate(_WIDTH - _DURATION_WIDTH, pad=True, overflow="ellipsis")
                    row.append(f"{seconds * 1000:{_DURATION_WIDTH - 3},.0f} ms", style="dim")
                out.print(row)
            case Chart(steps):
                for row in _bars(steps):
                    out.print(row)

    def fail(self, error: StackError) -> NoReturn:
        raise StackError(f"at step {self._step}, {self._title}: {error.problem}", fix=error.fix) from error

    def end(self, seconds: float) -> None:
        out.print(f"[bold green]Ordered, paid, delivered[/] in {seconds:.1f} s. Check it with `shopmesh verify`.")


class _JsonReport:
    """Collects the steps and prints them as JSON."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self._steps: list[dict[str, Any]] = []

    def start_step(self, title: str) -> None:
        self._steps.append({"title": title, "lines": []})

    def add(self, part: Part) -> None:
        if isinstance(part, Line):
            milliseconds = None if part.seconds is None else round(part.seconds * 1000, 1)
            self._steps[-1]["lines"].append({"text": part.text, "milliseconds": milliseconds})

    def fail(self, error: StackError) -> NoReturn:
        problem = {"ok": False, "step": self._steps[-1]["title"] if self._steps else "", "problem": str(error)}
        print_json(problem | {"steps": self._steps})
        raise typer.Exit(1)

    def end(self, seconds: float) -> None:
        print_json({"ok": True, "seconds": round(seconds, 2), "steps": self._steps} | self.facts)


def _bars(steps: Sequence[dict[str, Any]]) -> Iterator[Text]:
    """Yield each step as a bar on one time scale, without the wait for the parcel."""
    spans = [(step, *_span(step)) for step in steps]
    clock = _Clock([(begin, end) for _, begin, end in spans])
    for step, begin, end in spans:
        left, width = clock.place(begin, end)
        bar = " " * left + "█" * width
        attempts = f" {step['attempts']} tries" if step["attempts"] > 1 else ""
        row = Text(f"    {step['name']:20} ").append(f"{bar:{_BAR}}", style="green" if state(step) == "DONE" else "red")
        yield row.append(f"{(end - begin) * 1000:6.1f} ms{attempts}", style="dim")


class _Clock:
    """Maps time to columns; pauses between spans are shortened."""

    def __init__(self, spans: Sequence[tuple[float, float]]) -> None:
        self._starts: dict[float, float] = {}
        self._length = 0.0
        reached = None
        for begin, end in sorted(spans):
            pause = 0.0 if reached is None else min(max(0.0, begin - reached), _LONGEST_PAUSE)
            self._starts[begin] = self._length + pause
            self._length += pause + end - begin
            reached = end

    def place(self, begin: float, end: float) -> tuple[int, int]:
        """Return the first column of a span and its width, at least 1."""
        scale = _BAR / (self._length or 1.0)
        left = min(_BAR - 1, round(self._starts[begin] * scale))
        return left, max(1, round((self._starts[begin] + end - begin) * scale) - left)


def _span(step: dict[str, Any]) -> tuple[float, float]:
    begin = datetime.fromisoformat(step["startTime"]).timestamp()
    return begin, datetime.fromisoformat(step["endTime"]).timestamp() if step.get("endTime") else begin
