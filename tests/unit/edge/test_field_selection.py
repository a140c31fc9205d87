"""Partial replies keep the selected fields."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protobuf import DescMessage, Registry

from edge_gateway.json.field_selection import parse_fields, select
from tests.edge.attempts import attempt

VALUE = {
    "name": "a",
    "sub": {"s": "b", "sub": {"n": 1}},
    "subs": [{"s": "c", "r": [1]}, {"s": "d"}],
    "ms": {"k": "v", "l": "w"},
}


@pytest.fixture(scope="session")
def kinds(registry: Registry) -> DescMessage:
    found = registry.message("edgetest.v1.Kinds")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ("name", {"name": "a"}),
        ("sub.s,name", {"sub": {"s": "b"}, "name": "a"}),
        ("sub/sub/n", {"sub": {"sub": {"n": 1}}}),
        ("sub(s,sub(n))", {"sub": {"s": "b", "sub": {"n": 1}}}),
        ("subs.s", {"subs": [{"s": "c"}, {"s": "d"}]}),
        ("subs(r)", {"subs": [{"r": [1]}, {}]}),
        ("ms", {"ms": {"k": "v", "l": "w"}}),
        ("sub.s,sub.sub", {"sub": {"s": "b", "sub": {"n": 1}}}),
        ("*", VALUE),
        ("sub(*)", {"sub": VALUE["sub"]}),
        ("snake_case_name", {}),
    ],
)
def test_a_selection_keeps_the_named_fields(fields: str, kept: object, kinds: DescMessage) -> None:
    assert select(VALUE, parse_fields(fields, kinds)) == kept


@settings(derandomize=True, max_examples=100, deadline=None)
@given(
    text=st.text("ab.,/()* ", max_size=20) | st.text("s().,", max_size=400).map(lambda text: text.replace("s", "sub"))
)
def test_arbitrary_text_is_a_selection_or_rejected(text: str, kinds: DescMessage) -> None:
    selected = attempt(lambda: select(VALUE, parse_fields(text, kinds)))
    assert isinstance(selected, dict) or selected.http_status == 400
