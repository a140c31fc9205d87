"""The chart of a saga: bars in order of time, on one scale without long pauses."""

from mesh.cli.demo import _bars


def step(name, start, end, attempts=1, state="DONE"):
    stamp = "2026-01-01T00:00:{:06.3f}Z"
    return {
        "name": name,
        "state": f"SAGA_STEP_STATE_{state}",
        "attempts": attempts,
        "startTime": stamp.format(start),
        **({"endTime": stamp.format(end)} if end is not None else {}),
    }


def charted(*steps):
    return [bar.plain for bar in _bars(steps)]


def test_consecutive_steps_are_consecutive_bars_over_the_whole_width():
    first, second = charted(step("reserve_stock", 1.0, 1.1), step("book_slot", 1.1, 1.2))
    assert first.index("█") < second.index("█")
    assert first.rindex("█") < second.index("█")
    assert abs(first.count("█") - second.count("█")) <= 1
    assert "100.0 ms" in first


def test_a_long_pause_between_two_steps_takes_no_width():
    quick, late = charted(step("reserve_stock", 1.0, 1.1), step("capture_payment", 50.0, 50.1))
    assert quick.count("█") > 10
    assert late.count("█") > 10


def test_a_running_step_with_several_attempts_is_shown_with_its_attempts():
    (row,) = charted(step("authorize_payment", 1.0, None, attempts=3, state="RUNNING"))
    assert "3 tries" in row
    assert row.count("█") == 1


def test_every_row_fits_into_eighty_columns():
    rows = charted(*(step("confirm_reservation", n, n + 0.5, attempts=12) for n in range(6)))
    assert max(map(len, rows)) <= 80
