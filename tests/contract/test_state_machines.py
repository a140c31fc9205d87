"""Each state machine is one table in a domain module; the README draws it, and a CHECK constraint lists its states.

Every state can be reached by transitions that something performs, and every state that is not final has a way out.
"""

import importlib
import re
from pathlib import Path

import pytest

from chassis.domain.transitions import Transitions
from shop.contract import RPCS
from shop.topics import EVENTS

ROOT = Path(__file__).parents[2]
STATES = re.compile(r"CHECK \(\w+ IN\s+\(([^)]*)\)\)")

MACHINES = {
    f"{path.parent.name}.{path.stem}.{name}": value
    for path in sorted(ROOT.glob("svc_*/domain*.py"))
    for name, value in vars(importlib.import_module(f"{path.parent.name}.{path.stem}")).items()
    if isinstance(value, Transitions) and not name.startswith("_")
}

#: The states in which an order, a parcel and so on may stay for ever.
FINAL = {
    "svc_delivery.domain.BOOKING_TRANSITIONS": {"RELEASED"},
    "svc_delivery.domain_shipment.TRANSITIONS": {"DELIVERED", "RETURNED", "CANCELLED"},
    "svc_inventory.domain_reservation.TRANSITIONS": {"RELEASED", "EXPIRED", "FULFILLED"},
    "svc_order.domain.TRANSITIONS": {"REJECTED", "CANCELLED", "COMPLETED", "RETURNED"},
    "svc_order.domain_cancellation.CANCELLATION_TRANSITIONS": {"COMPLETED"},
    "svc_order.domain_returns.RETURN_TRANSITIONS": {"REJECTED", "COMPLETED", "CANCELLED"},
    "svc_order.domain_saga.SAGA_TRANSITIONS": {"DONE", "COMPENSATED"},
    # A payment stays CAPTURED, or refunded in part, when nothing more is refunded.
    "svc_payment.domain.TRANSITIONS": {
        *("FAILED", "VOIDED", "EXPIRED", "CAPTURED", "PARTIALLY_REFUNDED", "REFUNDED", "CHARGED_BACK")
    },
}
#: (machine, from, to): performers.
PERFORMED = {
    (machine, start, end): performers.split(", ")
    for machine, start, end, performers in (
        line.split(" | ")
        for line in Path(__file__).with_name("performed_transitions.txt").read_text("utf-8").splitlines()
        if not line.startswith("#")
    )
}

every_machine = pytest.mark.parametrize("machine", MACHINES)


def states(machine: str) -> set[str]:
    return {line.split()[-1] for line in MACHINES[machine].diagram().splitlines() if "-->" in line} - {"[*]"}


@every_machine
def test_the_readme_draws_it(machine: str) -> None:
    diagram = f"```mermaid\n{MACHINES[machine].diagram()}\n```"
    assert diagram in (ROOT / machine.partition(".")[0] / "README.md").read_text()


@every_machine
def test_a_check_constraint_lists_its_states(machine: str) -> None:
    migrations = (ROOT / machine.partition(".")[0] / "migrations").glob("*.sql")
    listed = [set(re.findall(r"'(\w+)'", names)) for path in migrations for names in STATES.findall(path.read_text())]
    assert states(machine) in listed


def edges(machine: str) -> set[tuple[str, str]]:
    lines = (line.split() for line in MACHINES[machine].diagram().splitlines() if "-->" in line and "[*]" not in line)
    return {(start, end) for start, _, end in lines}


def ends(start: str, performed: set[tuple[str, str]]) -> set[str]:
    """Return the states that performed transitions lead to from `start`, itself included."""
    found, queue = {start}, [start]
    while queue:
        here = queue.pop()
        queue += (new := {end for begin, end in performed if begin == here} - found)
        found |= new
    return found


def exists(performer: str) -> bool:
    """Return whether a performer is an RPC, an event, or a function."""
    if "." not in performer:
        names = {name.rpartition("/")[2] for name in RPCS} | {name.rpartition(".")[2] for name in EVENTS}
        return performer in names
    module, owner, name = performer.rsplit(".", 2)
    return callable(getattr(getattr(importlib.import_module(module), owner), name))


@pytest.mark.parametrize("machine", FINAL)
def test_every_transition_is_performed(machine: str) -> None:
    rows = {(start, end): by for (of, start, end), by in PERFORMED.items() if of == machine}
    assert set(rows) == edges(machine), "change tests/contract/performed_transitions.txt with the table"
    assert {performer for by in rows.values() for performer in by if not exists(performer)} == set()


@pytest.mark.parametrize("machine", FINAL)
def test_every_state_is_reached_and_each_that_is_not_final_has_a_way_out(machine: str) -> None:
    performed = {(start, end) for of, start, end in PERFORMED if of == machine}
    (initial,) = re.findall(r"\[\*\] --> (\w+)", MACHINES[machine].diagram())
    assert ends(initial, performed) == states(machine)
    stuck = {state for state in states(machine) if not ends(state, performed) & FINAL[machine]}
    assert stuck == set()
    assert {state for state in states(machine) if not any(start == state for start, _ in performed)} <= FINAL[machine]


def test_there_are_state_machines() -> None:
    assert "svc_inventory.domain_reservation.TRANSITIONS" in MACHINES
