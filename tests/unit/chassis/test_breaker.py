"""The circuit breaker, with a clock that the test moves."""

import pytest

from chassis.external.breaker import FAILURES, Breaker


class Clock:
    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breaker(clock):
    return Breaker("partner", clock=clock)


def fail(breaker, times=FAILURES):
    for _ in range(times):
        breaker.admit()
        breaker.failed()


def test_failures_in_a_row_open_the_circuit_and_fewer_do_not(breaker):
    fail(breaker, FAILURES - 1)
    assert breaker.admit()
    breaker.succeeded()
    fail(breaker, FAILURES - 1)
    assert breaker.is_closed
    fail(breaker, 1)
    assert not breaker.is_closed
    assert not breaker.admit()


def test_after_a_pause_one_probe_at_a_time_is_admitted(breaker, clock):
    fail(breaker)
    clock.seconds += 1.0
    assert breaker.admit()
    assert not breaker.admit()
    breaker.released()
    assert breaker.admit()


def test_a_probe_that_succeeds_closes_the_circuit_and_calls_back_once(breaker, clock):
    calls = []
    breaker.on_close(lambda: calls.append("closed"))
    fail(breaker)
    clock.seconds += 1.0
    breaker.admit()
    breaker.succeeded()
    breaker.succeeded()
    assert breaker.is_closed
    assert calls == ["closed"]


def test_pauses_grow_up_to_ten_seconds_while_probes_fail(breaker, clock):
    fail(breaker)
    for _ in range(20):
        clock.seconds += 10.0
        assert breaker.admit(), "no pause is longer than ten seconds"
        breaker.failed()
        assert not breaker.admits
    clock.seconds += 4.9
    assert not breaker.admits, "the last pause is at least half of the longest"


def test_a_late_failure_of_a_call_from_before_does_not_delay_the_probe(breaker, clock):
    fail(breaker)
    clock.seconds += 1.0
    breaker.failed()
    assert breaker.admit()
