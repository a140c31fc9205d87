"""CEL rules as JSON Schema, and the patterns of 64-bit ranges."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_gateway.openapi.cel import Demand, demands
from edge_gateway.openapi.comments import summary_of
from edge_gateway.openapi.examples import plainest
from edge_gateway.openapi.numbers import duration_pattern, integer_pattern


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        ("this.a != ''", [Demand(("a",), {"minLength": 1})]),
        ("has(this.a.b)", [Demand(("a", "b"), {})]),
        ("this.a.size() > 0", [Demand(("a",), {"minItems": 1})]),
        ("this.a.size() >= 2", [Demand(("a",), {"minItems": 2})]),
        (r"this.a.matches('^x && y\\.$')", [Demand(("a",), {"pattern": r"^x && y\.$"})]),
        ("this.n > -1 && this.n <= 5", [Demand(("n",), {"exclusiveMinimum": -1}), Demand(("n",), {"maximum": 5})]),
        ("this.n == 0", [Demand(("n",), {"const": 0})]),
        ("this.a != '' && (this.b != '' || this.c != '')", [Demand(("a",), {"minLength": 1})]),
        ("this.a != '' || this.b != ''", []),
        ("this.a != '' ? true : false", []),
        ("!has(this.a)", []),
        ("this.a < this.b", []),
        ("", []),
    ],
)
def test_an_expression_becomes_the_constraints_that_json_schema_has(expression: str, wanted: list[Demand]) -> None:
    assert list(demands(expression)) == wanted


_LIMIT = 10**18 - 1


@settings(deadline=None)
@given(st.integers(-_LIMIT, _LIMIT), st.integers(-_LIMIT, _LIMIT), st.integers(-_LIMIT, _LIMIT))
def test_a_pattern_matches_exactly_the_integers_of_its_range(one: int, two: int, number: int) -> None:
    low, high = sorted((one, two))
    pattern = integer_pattern(low, high)

    for candidate in (low, high, low - 1, high + 1, 0, number):
        assert (re.search(pattern, str(candidate)) is not None) == (low <= candidate <= high)


@settings(deadline=None)
@given(st.integers(-_LIMIT, _LIMIT), st.integers(-_LIMIT, _LIMIT))
def test_a_range_may_be_open(end: int, number: int) -> None:
    assert (re.search(integer_pattern(end, None), str(number)) is not None) == (number >= end)
    assert (re.search(integer_pattern(None, end), str(number)) is not None) == (number <= end)


@settings(deadline=None)
@given(
    ends=st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)),
    seconds=st.integers(0, 10**6),
    inclusive=st.booleans(),
    fraction=st.booleans(),
)
def test_a_pattern_matches_exactly_the_durations_of_its_range(
    *, ends: tuple[int, int], seconds: int, inclusive: bool, fraction: bool
) -> None:
    low, high = sorted(ends)
    pattern = duration_pattern(low, high, inclusive=inclusive)

    for whole in (low, high, high + 1, seconds, *([low - 1] if low else [])):
        value = whole + (0.5 if fraction else 0)
        text = f"{whole}.5s" if fraction else f"{whole}s"
        is_in = low <= value < high or (inclusive and value == high)
        assert (re.search(pattern, text) is not None) == is_in


@pytest.mark.parametrize("text", ["", "-", "-0", "01", "+1", "1.0", "1e3", " 1", "a"])
def test_other_spellings_of_a_number_do_not_match(text: str) -> None:
    assert re.search(integer_pattern(None, None), text) is None
    assert re.search(integer_pattern(0, 100), text) is None


_PIECES = ["[a-z]{0,3}", "[0-9]+", "[^a]", "[^a-f0]{2}", "(x|y)", r"\d{2}", r"[^\d]", r"\.", ".", "k*", r"[\w-]+?"]


@settings(deadline=None)
@given(st.lists(st.sampled_from(_PIECES), max_size=5).map("".join))
def test_the_simplest_text_of_a_pattern_matches_it(pattern: str) -> None:
    assert re.search(f"^(?:{pattern})$", plainest(f"^(?:{pattern})$")) is not None


@pytest.mark.parametrize(
    ("comment", "summary", "rest"),
    [
        ("Gets a thing.", "Gets a thing", ""),
        ("Gets a thing. It is new.", "Gets a thing", "It is new."),
        ("Gets v1.2 of it.\n\nAnd more.", "Gets v1.2 of it", "And more."),
        ("No full stop", "No full stop", ""),
        ("", "", ""),
        (
            "Creates an order at the prices that the server finds, and drives it as far as the deadline allows it to.",
            "Creates an order at the prices that the server finds",
            "Creates an order at the prices that the server finds, and drives it as far as the deadline allows it to.",
        ),
    ],
)
def test_the_first_sentence_is_the_summary(comment: str, summary: str, rest: str) -> None:
    assert summary_of(comment) == (summary, rest)
