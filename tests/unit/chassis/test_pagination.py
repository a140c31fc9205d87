"""Page tokens return the sort key they were made of; any other text is rejected and never an unexpected error."""

import base64
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from functools import partial

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chassis.types.pagination import END_OF_TIME, START_OF_TIME, Keyset, page_token, parse_time, parse_uint
from shop.chassis.v1.chassis_errors import PageTokenInvalid
from shop.order.v1.order_service_pb2 import ListOrdersRequest

TEXT = Keyset(str, start=("",))
NUMBER = Keyset(parse_uint, start=(0,))
TIME = Keyset(parse_time, str, start=(START_OF_TIME, ""))

text = st.text(st.characters(exclude_characters="\x1f\0", exclude_categories=["Cs"]))


def after(keyset, token):
    return keyset.page(ListOrdersRequest(page_token=token)).after


@given(st.lists(text, min_size=1, max_size=4).filter(lambda key: key != [""]))  # an empty token is the first page
def test_a_token_returns_its_sort_key(key):
    assert after(Keyset(*[str] * len(key), start=()), page_token(*key)) == tuple(key)


@given(st.integers(0, 2**63 - 1))
def test_a_number_in_a_sort_key_survives(number):
    assert after(NUMBER, page_token(number)) == (number,)


@given(st.datetimes(timezones=st.just(UTC)), text)
@example(END_OF_TIME, "")
def test_a_time_in_a_sort_key_survives(time, entry):
    assert after(TIME, page_token(time, entry)) == (time, entry)


@given(st.text())
@example("é")
@example("====")
@example("!")
@example(base64.urlsafe_b64encode(b"\xff").decode())
@example(base64.urlsafe_b64encode(b"\x1f").decode())
def test_any_text_is_a_sort_key_or_is_rejected(token):
    for keyset in (TEXT, NUMBER, TIME):
        with suppress(PageTokenInvalid):
            after(keyset, token)


@pytest.mark.parametrize("number", ["-1", str(2**63), "9" * 30, "9" * 5000, "1.0", "x", " "])
def test_a_number_that_the_database_cannot_hold_is_rejected(number):
    with pytest.raises(PageTokenInvalid):
        after(NUMBER, page_token(number))


def test_a_number_beyond_the_lists_own_maximum_is_rejected():
    versions = Keyset(partial(parse_uint, maximum=9), start=(0,))
    assert after(versions, page_token(9)) == (9,)
    with pytest.raises(PageTokenInvalid):
        after(versions, page_token(10))


@pytest.mark.parametrize(
    "time",
    [
        "yesterday",
        "2026-11-20T12:00:00",
        datetime.min.replace(tzinfo=timezone(timedelta(hours=14))).isoformat(),
        datetime.max.replace(tzinfo=timezone(-timedelta(hours=12))).isoformat(),
    ],
)
def test_a_time_that_the_database_cannot_hold_is_rejected(time):
    with pytest.raises(PageTokenInvalid):
        after(TIME, page_token(time, "a"))


def test_a_sort_key_with_a_nul_is_rejected():
    with pytest.raises(PageTokenInvalid):
        after(TEXT, page_token("a\0b"))


@pytest.mark.parametrize("key", [("a",), ("a", "b", "c")])
def test_a_token_of_another_list_is_rejected(key):
    with pytest.raises(PageTokenInvalid):
        after(Keyset(str, str, start=()), page_token(*key))


def test_without_a_token_the_page_begins_at_the_start_of_the_list():
    assert after(TIME, "") == (START_OF_TIME, "")


def test_a_page_has_the_requested_size_or_20():
    assert TEXT.page(ListOrdersRequest(page_size=7)).size == 7
    assert TEXT.page(ListOrdersRequest()).size == 20


@given(st.integers(1, 7), st.lists(st.integers(0, 50), unique=True).map(sorted))
def test_the_pages_of_a_list_together_are_the_list(size, rows):
    seen, token, pages = [], "", 0
    while token or not pages:
        page = Keyset(parse_uint, start=(-1,)).page(ListOrdersRequest(page_size=size, page_token=token))
        found = [row for row in rows if row > page.after[0]][: page.limit]
        shown, token = page.cut(found, lambda row: (row,))
        assert len(shown) <= size
        seen += shown
        pages += 1
    assert seen == rows
    assert pages == max(1, -(-len(rows) // size))  # a full last page is not followed by an empty one
