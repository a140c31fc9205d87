"""Exponential backoff, the one formula for every retry."""

from datetime import timedelta

#: More than any pause needs to reach its maximum, and no overflow of timedelta.
_MAX_DOUBLINGS = 24


def backoff(attempt: int, first: timedelta, longest: timedelta, jitter: float = 1.0) -> timedelta:
    """Return the pause after failed attempt `attempt`, counted from 1: `first`, doubled each time, at most `longest`.

    `jitter`, a random number from 0 to 1, shortens the pause by up to half, so that the retries of many
    callers do not coincide; 1 does not shorten it.
    """
    doublings: int = min(max(attempt - 1, 0), _MAX_DOUBLINGS)
    return min(first * (1 << doublings), longest) * (0.5 + jitter / 2)
