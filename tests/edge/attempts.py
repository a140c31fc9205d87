"""For fuzzing: a call succeeds, or raises EdgeError."""

from collections.abc import Callable
from typing import TypeVar

from edge_gateway.errors import EdgeError

T = TypeVar("T")


def attempt(call: Callable[[], T]) -> T | EdgeError:
    """Return the result of a call, or its EdgeError; any other exception is a bug and propagates."""
    try:
        return call()
    except EdgeError as error:
        return error
