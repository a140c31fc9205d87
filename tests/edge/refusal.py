"""For fuzzing: something works, or is refused as the edge refuses things."""

from collections.abc import Callable
from typing import TypeVar

from edge_gateway.errors import EdgeError

T = TypeVar("T")


def attempt(call: Callable[[], T]) -> T | EdgeError:
    """Returns what a call returns, or how it was refused; any other exception is a bug and is raised."""
    try:
        return call()
    except EdgeError as error:
        return error
