"""Migrations run while the release before them serves: they expand the schema, and lock no large table for long."""

import re
from pathlib import Path

import pytest

from mesh.services import SERVICES

ROOT = Path(__file__).parents[2]
#: What the release before still uses may go only in a migration that says which release stopped using it.
CONTRACTION = "-- contract: "
#: Applied before there was a release to keep running; by name without number.
BEFORE_THE_RULES = {
    "assign_shipments",
    "cancel_shipments",
    "count_claims_and_rename",
    "create_jobs_with_their_shipments",
    "create_listing",
    "find_delivered_orders_by_their_arrival",
    "find_ended_sessions",
    "find_sessions_by_family",
    "keep_dropped_skus",
    "pay_an_order_again",
    "rename_refusal_to_error",
    "request_redrive",
    "use_chassis_worker_and_webhooks",
}
FILES = sorted(path for part in ("chassis/postgres", *SERVICES) for path in (ROOT / part / "migrations").glob("*.sql"))


def breaches(sql: str) -> list[str]:
    """Return what an older release, or a large table, does not survive."""
    found = []
    code = re.sub(r"--.*", "", sql)
    if not sql.startswith(CONTRACTION):
        found += re.findall(
            r"\bDROP TABLE\b|\bDROP COLUMN\b|\bRENAME\b|\bALTER COLUMN \w+ TYPE\b|\bSET NOT NULL\b", code
        )
    created = set(re.findall(r"\bCREATE TABLE (\w+)", code))
    for concurrently, table in re.findall(
        r"\bCREATE (?:UNIQUE )?INDEX (CONCURRENTLY )?(?:IF NOT EXISTS )?\w+\s+ON (\w+)", code
    ):
        if not concurrently and table not in created:
            found.append(f"CREATE INDEX ON {table} without CONCURRENTLY")
    for column in re.findall(r"\bADD COLUMN [^,;]*\bNOT NULL\b[^,;]*", code):
        if "DEFAULT" not in column:
            found.append(column)
    if sql.startswith("-- concurrently"):
        statements = [one for one in re.split(r";\s*$", code, flags=re.MULTILINE) if one.strip()]
        found += [one.strip() for one in statements if not re.search(r"\bIF (NOT )?EXISTS\b", one)]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parts[-3]}/{path.stem}")
def test_a_migration_leaves_the_release_before_it_running(path: Path) -> None:
    if path.stem.partition("_")[2] not in BEFORE_THE_RULES:
        assert breaches(path.read_text()) == [], "see chassis/postgres/migrate.py for `-- concurrently`"


@pytest.mark.parametrize(
    ("sql", "count"),
    [
        ("ALTER TABLE a DROP COLUMN b", 1),
        ("-- contract: b is unused since release 2\nALTER TABLE a DROP COLUMN b", 0),
        ("ALTER TABLE a RENAME COLUMN b TO c", 1),
        ("ALTER TABLE a ALTER COLUMN b TYPE bigint, ALTER COLUMN c SET NOT NULL", 2),
        ("ALTER TABLE a ADD COLUMN b int NOT NULL", 1),
        ("ALTER TABLE a ADD COLUMN b int NOT NULL DEFAULT 0, ADD COLUMN c text", 0),
        ("CREATE INDEX b ON a (c)", 1),
        ("CREATE TABLE a (c int);\nCREATE UNIQUE INDEX b ON a (c);", 0),
        ("-- concurrently\nCREATE INDEX CONCURRENTLY IF NOT EXISTS b ON a (c);", 0),
        ("-- concurrently\nCREATE INDEX CONCURRENTLY b ON a (c);", 1),
    ],
)
def test_what_an_older_release_does_not_survive_is_found(sql: str, count: int) -> None:
    assert len(breaches(sql)) == count
