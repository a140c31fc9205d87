"""`shopmesh demo`: one purchase, told step by step."""

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
from mesh.qa.shop_client import Refused, Shopfront, Unknown, state
from mesh.qa.simulator_client import Partner
from mesh.stack.secrets import Secrets
from mesh.stack.state import Record

_WIDTH = 78
_BAR = 36
_TOOK = 10  # characters of a duration
_LONGEST_PAUSE = 0.002  # seconds between two steps that a chart shows


def demo(*, json: AsJson = False, state_dir: StateDir = None) -> None:
    """Buy something, and follow it until it is paid and delivered. Exits with 1 when anything is not as it should."""
    record = running_stack(state_dir)
    secrets = Secrets(state_in(state_dir))
    narrator = _Recorder() if json else _Narrator()
    began = time.perf_counter()
    try:
        uvloop.run(_buy(record, secrets, narrator))
    except (StackError, Refused, Unknown) as error:
        narrator.fail(error if isinstance(error, StackError) else StackError(f"the shop said: {error}"))
    narrator.end(time.perf_counter() - began)


async def _buy(record: Record, secrets: Secrets, narrator: "_Narrator | _Recorder") -> None:
    payment_provider, courier = (Partner.of(record, secrets, name) for name in ("payment_provider", "courier"))
    async with Shopfront.open(record.edge) as door:
        purchase = Purchase(door, staff(secrets), payment_provider, courier)
        for step in purchase.steps():
            narrator.begin(step.title)
            async for part in step.tell():
                narrator.say(part)
        narrator.facts = {
            "order": purchase.order,
            "shipment": purchase.shipment,
            "payment": purchase.payment,
            "timeline": purchase.timeline,
        }


class _Narrator:
    """Tells it to a person."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self._chapter = 0
        self._title = ""

    def begin(self, title: str) -> None:
        self._chapter, self._title = self._chapter + 1, title
        out.print(f"[bold cyan]{self._chapter:2}  {title}[/]")

    def say(self, part: Part) -> None:
        match part:
            case Line(text, seconds):
                row = Text(f"    {text}")
                if seconds is not None:
                    row.truncate(_WIDTH - _TOOK, pad=True, overflow="ellipsis")
                    row.append(f"{seconds * 1000:{_TOOK - 3},.0f} ms", style="dim")
                out.print(row)
            case Chart(steps):
                for row in _bars(steps):
                    out.print(row)

    def fail(self, error: StackError) -> NoReturn:
        raise StackError(f"at step {self._chapter}, {self._title}: {error.problem}", fix=error.fix) from error

    def end(self, seconds: float) -> None:
        out.print(f"[bold green]Bought, paid, delivered[/] in {seconds:.1f} s. `shopmesh verify` proves the rest.")


class _Recorder:
    """Tells it to a machine."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self._chapters: list[dict[str, Any]] = []

    def begin(self, title: str) -> None:
        self._chapters.append({"title": title, "lines": []})

    def say(self, part: Part) -> None:
        if isinstance(part, Line):
            took = None if part.seconds is None else round(part.seconds * 1000, 1)
            self._chapters[-1]["lines"].append({"text": part.text, "milliseconds": took})

    def fail(self, error: StackError) -> NoReturn:
        problem = {"ok": False, "step": self._chapters[-1]["title"] if self._chapters else "", "problem": str(error)}
        print_json(problem | {"steps": self._chapters})
        raise typer.Exit(1)

    def end(self, seconds: float) -> None:
        print_json({"ok": True, "seconds": round(seconds, 2), "steps": self._chapters} | self.facts)


def _bars(steps: Sequence[dict[str, Any]]) -> Iterator[Text]:
    """Each step as a bar on one scale of time; the wait for the parcel, which is not the saga's, is left out."""
    spans = [(step, *_span(step)) for step in steps]
    clock = _Clock([(begin, end) for _, begin, end in spans])
    for step, begin, end in spans:
        left, width = clock.place(begin, end)
        bar = " " * left + "█" * width
        tries = f" {step['attempts']} tries" if step["attempts"] > 1 else ""
        row = Text(f"    {step['name']:20} ").append(f"{bar:{_BAR}}", style="green" if state(step) == "DONE" else "red")
        yield row.append(f"{(end - begin) * 1000:6.1f} ms{tries}", style="dim")


class _Clock:
    """Maps time to columns, skipping the pauses between spans."""

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
        """The first column of a span, and how many it fills, at least one."""
        scale = _BAR / (self._length or 1.0)
        left = min(_BAR - 1, round(self._starts[begin] * scale))
        return left, max(1, round((self._starts[begin] + end - begin) * scale) - left)


def _span(step: dict[str, Any]) -> tuple[float, float]:
    begin = datetime.fromisoformat(step["startTime"]).timestamp()
    return begin, datetime.fromisoformat(step["endTime"]).timestamp() if step.get("endTime") else begin
