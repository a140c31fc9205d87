"""What becomes of the rows of each table is decided: they are purged by a setting, bounded, or kept for a reason."""

import re
from pathlib import Path

from chassis import Settings
from chassis.events.retention import retention
from mesh.services import SERVICES

ROOT = Path(__file__).parents[2]
#: A file for each owner with a line for each table: `table | purged, bounded or kept | after how long, or why`. Spaces
#: around | align the columns and mean nothing.
FILES = Path(__file__).with_name("retention")
PARTS = {"chassis": "chassis/postgres", **{name: name for name in SERVICES}}


def reviewed() -> dict[str, tuple[str, str]]:
    """Return the decision and its reason by owner and table."""
    found = {}
    for owner in PARTS:
        for line in (FILES / f"{owner}.txt").read_text("utf-8").splitlines():
            table, decision, reason = re.split(r"\s*\|\s*", line)
            found[f"{owner} {table}"] = decision, reason
    return found


def tables(owner: str) -> set[str]:
    """Return the tables that the migrations of an owner create, without those that a later one drops."""
    sql = "\n".join(path.read_text("utf-8") for path in sorted((ROOT / PARTS[owner] / "migrations").glob("*.sql")))
    return set(re.findall(r"^CREATE TABLE (\w+)", sql, re.MULTILINE)) - set(re.findall(r"\bDROP TABLE (\w+)", sql))


def test_what_becomes_of_the_rows_of_every_table_is_decided() -> None:
    assert set(reviewed()) == {f"{owner} {table}" for owner in PARTS for table in tables(owner)}
    assert {decision for decision, _ in reviewed().values()} == {"purged", "bounded", "kept"}


def test_tables_whose_rows_are_said_to_be_purged_are() -> None:
    purged = {f"chassis {table}" for table, _, _ in retention(Settings())}
    for name in SERVICES:
        source = (ROOT / name / "__main__.py").read_text("utf-8")
        purged |= {f"{name} {table}" for table in re.findall(r'purge_older_than\(\w+, "(\w+)"', source)}
    assert {table for table, (decision, _) in reviewed().items() if decision == "purged"} == purged
