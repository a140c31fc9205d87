"""Transition tables: what is legal, the shortest path between two states, and the state diagram."""

from enum import Enum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.domain.transitions import Transitions

State = Enum("State", ["DRAFT", "PAID", "SHIPPED", "RETURNED", "CANCELLED"])
DRAFT, PAID, SHIPPED, RETURNED, CANCELLED = State

ORDERS = Transitions.between({DRAFT: [PAID, CANCELLED], PAID: [SHIPPED, CANCELLED], SHIPPED: [RETURNED]})


def test_a_transition_is_legal_in_its_direction_only():
    assert ORDERS.allows(DRAFT, PAID)
    assert not ORDERS.allows(PAID, DRAFT)
    assert not ORDERS.allows(DRAFT, SHIPPED)
    assert not ORDERS.allows(DRAFT, DRAFT)


def test_a_transition_has_the_effect_that_the_table_gives_it():
    effects = Transitions({(DRAFT, PAID): "charge", (DRAFT, CANCELLED): "void"})
    assert effects.effect(DRAFT, PAID) == "charge"
    assert effects.effect(DRAFT, CANCELLED) == "void"
    with pytest.raises(KeyError):
        effects.effect(PAID, DRAFT)
    assert ORDERS.effect(DRAFT, PAID) is None


def test_a_final_state_has_no_targets():
    assert ORDERS.targets(PAID) == (SHIPPED, CANCELLED)
    assert [state for state in State if ORDERS.is_final(state)] == [RETURNED, CANCELLED]


@pytest.mark.parametrize(
    ("start", "end", "path"),
    [
        (DRAFT, RETURNED, (PAID, SHIPPED, RETURNED)),
        (DRAFT, CANCELLED, (CANCELLED,)),
        (PAID, CANCELLED, (CANCELLED,)),
        (DRAFT, DRAFT, ()),
        (CANCELLED, CANCELLED, ()),
        (SHIPPED, PAID, None),
        (CANCELLED, DRAFT, None),
    ],
)
def test_the_path_leads_from_one_state_to_another(start, end, path):
    assert ORDERS.path(start, end) == path


states = st.sampled_from(list(State))


@given(st.frozensets(st.tuples(states, states)), states, states)
def test_a_path_is_legal_and_none_is_shorter(edges, start, end):
    table = Transitions(dict.fromkeys(edges))
    reached, steps = {start}, 0
    while end not in reached and steps <= len(State):
        reached, steps = reached | {to for begin, to in edges if begin in reached}, steps + 1
    path = table.path(start, end)
    if path is None:
        assert end not in reached
        return
    assert len(path) == steps
    assert (start, *path)[-1] is end
    assert all(table.allows(*step) for step in zip((start, *path), path, strict=False))


def test_the_diagram_shows_each_transition_where_the_machine_starts_and_where_it_ends():
    assert ORDERS.diagram().splitlines() == [
        "stateDiagram-v2",
        "    [*] --> DRAFT",
        "    DRAFT --> PAID",
        "    DRAFT --> CANCELLED",
        "    PAID --> SHIPPED",
        "    PAID --> CANCELLED",
        "    SHIPPED --> RETURNED",
        "    CANCELLED --> [*]",
        "    RETURNED --> [*]",
    ]


def test_diagram_starts_at_the_first_state_when_a_transition_enters_every_state():
    class Light(Enum):
        RED = "RED"
        GREEN = "GREEN"

    circle = Transitions.between({Light.RED: [Light.GREEN], Light.GREEN: [Light.RED]})
    assert circle.diagram().splitlines()[1] == "    [*] --> RED"
