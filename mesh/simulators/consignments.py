"""A consignment as the courier sees it: the moves it may make, and the record of those it made."""

import secrets
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from mesh.simulators.errors import ApiError
from mesh.simulators.store import Journal, Row, timestamp

SCHEMA = """
CREATE TABLE IF NOT EXISTS consignments (
    id              TEXT PRIMARY KEY,
    reference       TEXT NOT NULL UNIQUE,
    tracking_number TEXT NOT NULL UNIQUE,
    label_id        TEXT NOT NULL UNIQUE,
    weight_grams    INTEGER NOT NULL,
    status          TEXT NOT NULL,
    version         INTEGER NOT NULL,
    create_time     TEXT NOT NULL,
    update_time     TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS movements (
    sequence       INTEGER PRIMARY KEY AUTOINCREMENT,
    consignment_id TEXT NOT NULL REFERENCES consignments,
    status         TEXT NOT NULL,
    create_time    TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS movements_by_consignment ON movements (consignment_id);
"""

LEDGER = """
SELECT sequence, consignment_id, reference, tracking_number, movements.status, movements.create_time
FROM movements JOIN consignments ON consignments.id = consignment_id WHERE sequence > :after
"""


class Status(StrEnum):
    LABELLED = "LABELLED"
    PICKED_UP = "PICKED_UP"
    IN_TRANSIT = "IN_TRANSIT"
    OUT_FOR_DELIVERY = "OUT_FOR_DELIVERY"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"
    RETURNED = "RETURNED"
    CANCELLED = "CANCELLED"


ROAD = (Status.LABELLED, Status.PICKED_UP, Status.IN_TRANSIT, Status.OUT_FOR_DELIVERY, Status.DELIVERED)
DETOURS = {
    Status.LABELLED: (Status.FAILED, Status.CANCELLED),
    Status.PICKED_UP: (Status.FAILED,),
    Status.IN_TRANSIT: (Status.FAILED,),
    Status.OUT_FOR_DELIVERY: (Status.FAILED,),
    Status.FAILED: (Status.IN_TRANSIT, Status.RETURNED),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Consignment:
    id: str
    reference: str
    tracking_number: str
    label_id: str
    weight_grams: int
    status: Status = Status.LABELLED
    # Grows with each move, so that a late webhook is seen to be one.
    version: int = 1
    create_time: str
    update_time: str


def new(*, reference: str, weight_grams: int) -> Consignment:
    now = timestamp()
    return Consignment(
        id=f"con_{secrets.token_hex(12)}",
        reference=reference,
        tracking_number=f"SM{secrets.randbelow(10**12):012d}",
        label_id=f"lbl_{secrets.token_hex(12)}",
        weight_grams=weight_grams,
        create_time=now,
        update_time=now,
    )


def steps(status: Status, to: Status | None) -> list[Status]:
    """The moves that lead to a status, or one step down the road: a detour, or all of the road between."""
    if to in DETOURS.get(status, ()):
        return [to] if to else []
    ahead = ROAD[ROAD.index(status) + 1 :] if status in ROAD else ()
    if to is None and ahead:
        return [ahead[0]]
    if to not in ahead:
        raise ApiError(409, "move_not_possible", f"the consignment is {status}", param="to")
    return list(ahead[: ahead.index(to) + 1])


def move(consignment: Consignment, to: Status) -> Consignment:
    return replace(consignment, status=to, version=consignment.version + 1, update_time=timestamp())


def find(journal: Journal, *, consignment_id: str | None = None, reference: str | None = None) -> Consignment | None:
    sql = "SELECT * FROM consignments WHERE id = :id OR reference = :reference"
    row = journal.row(sql, id=consignment_id, reference=reference)
    return _from_row(row) if row else None


def on_the_road(journal: Journal, *, moved_before: str) -> list[Consignment]:
    """Those that can go one step further and have stood still since then."""
    sql = """SELECT * FROM consignments WHERE update_time <= :moved_before
             AND status IN ('LABELLED', 'PICKED_UP', 'IN_TRANSIT', 'OUT_FOR_DELIVERY')"""
    return [_from_row(row) for row in journal.rows(sql, moved_before=moved_before)]


def save(journal: Journal, consignment: Consignment) -> None:
    """The consignment as it is now, and the movement that made it so, in the caller's transaction."""
    journal.execute(
        "INSERT INTO consignments VALUES (:id, :reference, :tracking_number, :label_id, :weight_grams,"
        " :status, :version, :create_time, :update_time) ON CONFLICT (id) DO UPDATE SET"
        " status = excluded.status, version = excluded.version, update_time = excluded.update_time",
        **asdict(consignment),
    )
    journal.execute(
        "INSERT INTO movements (consignment_id, status, create_time) VALUES (:id, :status, :now)",
        id=consignment.id,
        status=consignment.status,
        now=consignment.update_time,
    )


def as_json(journal: Journal, consignment: Consignment) -> dict[str, Any]:
    """A consignment with all its movements; the address stays with the courier."""
    movements = journal.rows(
        "SELECT status, create_time FROM movements WHERE consignment_id = :id ORDER BY sequence",
        id=consignment.id,
    )
    return asdict(consignment) | {"movements": [dict(movement) for movement in movements]}


def _from_row(row: Row) -> Consignment:
    return Consignment(**dict(row) | {"status": Status(row["status"])})
