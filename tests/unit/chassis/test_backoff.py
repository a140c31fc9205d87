"""Backoff: it doubles, it has a maximum, and jitter only shortens it."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.domain.backoff import backoff

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


@pytest.mark.parametrize(("attempt", "seconds"), [(0, 1), (1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (8, 60)])
def test_the_pause_doubles_with_each_attempt_up_to_its_maximum(attempt, seconds):
    assert backoff(attempt, SECOND, MINUTE) == timedelta(seconds=seconds)


@given(st.integers(0, 2**63), st.floats(0, 1))
def test_jitter_shortens_any_pause_by_at_most_half(attempt, jitter):
    whole = backoff(attempt, SECOND, MINUTE)
    assert whole / 2 <= backoff(attempt, SECOND, MINUTE, jitter) <= whole


def test_jitter_is_proportional():
    assert backoff(3, SECOND, MINUTE, 0.0) == timedelta(seconds=2)
    assert backoff(3, SECOND, MINUTE, 0.5) == timedelta(seconds=3)


def test_a_maximum_of_days_is_reached():
    assert backoff(2**31, timedelta(seconds=0.1), timedelta(days=7)) == timedelta(days=7)
