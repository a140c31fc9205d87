"""Each state machine is one table in a domain module; the README draws it, and a CHECK constraint lists its states."""

import importlib
import re
from pathlib import Path

import pytest

from chassis.domain.transitions import Transitions

ROOT = Path(__file__).parents[2]
STATES = re.compile(r"CHECK \(\w+ IN\s+\(([^)]*)\)\)")

MACHINES = {
    f"{path.parent.name}.{path.stem}.{name}": value
    for path in sorted(ROOT.glob("svc_*/domain*.py"))
    for name, value in vars(importlib.import_module(f"{path.parent.name}.{path.stem}")).items()
    if isinstance(value, Transitions) and not name.startswith("_")
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


def test_there_are_state_machines() -> None:
    assert "svc_inventory.domain_reservation.TRANSITIONS" in MACHINES
