"""The steps of the demo and their output, which mesh.cli.demo prints as text or JSON."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Line:
    """A line of output, with the seconds of a request."""

    text: str
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Chart:
    """The steps of a saga, from GetOrderTimeline."""

    steps: Sequence[dict[str, Any]]


Part = Line | Chart


@dataclass(frozen=True, slots=True)
class Step:
    """A step; `run` yields its output as it happens."""

    title: str
    run: Callable[[], AsyncIterator[Part]]
