"""Page tokens give back the position they were made of; whatever else a client sends is refused, never an error."""

import base64
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chassis.types.pagination import int_position, page_position, page_size, page_token, time_position
from shop.chassis.v1.chassis_errors import PageTokenInvalid

parts = st.lists(st.text(st.characters(exclude_characters="\x1f\0", exclude_categories=["Cs"])), min_size=1, max_size=4)
positions = parts.filter(lambda position: position != [""])  # an empty token is the first page


@given(positions)
def test_a_token_gives_back_its_position(position):
    assert page_position(page_token(*position), len(position)) == position


@given(st.integers(0, 2**63 - 1))
def test_a_number_survives(position):
    assert int_position(page_token(position), 0) == position


@given(st.text())
@example("é")
@example("====")
@example("!")
@example(base64.urlsafe_b64encode(b"\xff").decode())
def test_any_text_is_a_position_or_is_refused(token):
    for read in (lambda: page_position(token, 1), lambda: int_position(token, 0)):
        with suppress(PageTokenInvalid):
            read()


@pytest.mark.parametrize("position", ["-1", str(2**63), "9" * 30, "9" * 5000, "1.0", "x", ""])
def test_a_number_that_the_database_cannot_hold_is_refused(position):
    token = page_token(position) or "="
    with pytest.raises(PageTokenInvalid):
        int_position(token, 0)


_BEGINNING = (datetime(1970, 1, 1, tzinfo=UTC), "")


@given(st.datetimes(timezones=st.just(UTC)), st.text("abc", max_size=3))
def test_a_time_survives(moment, entry):
    assert time_position(page_token(moment.isoformat(), entry), _BEGINNING) == (moment, entry)


@pytest.mark.parametrize(
    "moment",
    [
        "yesterday",
        "2026-11-20T12:00:00",
        datetime.min.replace(tzinfo=timezone(timedelta(hours=14))).isoformat(),
        datetime.max.replace(tzinfo=timezone(-timedelta(hours=12))).isoformat(),
    ],
)
def test_a_time_that_the_database_cannot_hold_is_refused(moment):
    with pytest.raises(PageTokenInvalid):
        time_position(page_token(moment, "a"), _BEGINNING)


def test_a_position_with_a_nul_is_refused():
    with pytest.raises(PageTokenInvalid):
        page_position(page_token("a\0b"), 1)


def test_no_token_is_the_first_page():
    assert page_position("", 2) is None
    assert int_position("", 7) == 7


def test_a_token_of_another_list_is_refused():
    with pytest.raises(PageTokenInvalid):
        page_position(page_token("a", "b"), 3)


def test_zero_asks_for_the_usual_size():
    assert page_size(0) == 20
    assert page_size(7) == 7
