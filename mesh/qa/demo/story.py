"""What a step of the story is made of; mesh.cli.demo shows it, or prints it as JSON."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Line:
    """Something that happened, and how many seconds it took where that matters."""

    text: str
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Chart:
    """The steps of a saga, as GetOrderTimeline tells them."""

    steps: Sequence[dict[str, Any]]


Part = Line | Chart


@dataclass(frozen=True, slots=True)
class Step:
    """A chapter; its parts come as they happen."""

    title: str
    tell: Callable[[], AsyncIterator[Part]]
