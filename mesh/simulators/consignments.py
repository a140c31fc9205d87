"""A consignment of the courier: its transitions, and the record of them."""

import secrets
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from mesh.simulators.errors import ApiError
from mesh.simulators.store import Row, SqliteStore, timestamp

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
    """The states of a consignment."""

    LABELLED = "LABELLED"
    PICKED_UP = "PICKED_UP"
    IN_TRANSIT = "IN_TRANSIT"
    OUT_FOR_DELIVERY = "OUT_FOR_DELIVERY"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"
    RETURNED = "RETURNED"
    CANCELLED = "CANCELLED"


DELIVERY_PATH = (Status.LABELLED, Status.PICKED_UP, Status.IN_TRANSIT, Status.OUT_FOR_DELIVERY, Status.DELIVERED)
OTHER_TRANSITIONS = {
    Status.LABELLED: (Status.FAILED, Status.CANCELLED),
    Status.PICKED_UP: (Status.FAILED,),
    Status.IN_TRANSIT: (Status.FAILED,),
    Status.OUT_FOR_DELIVERY: (Status.FAILED,),
    Status.FAILED: (Status.IN_TRANSIT, Status.RETURNED),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Consignment:
    """A parcel that the courier accepted."""

    id: str
    reference: str
    tracking_number: str
    label_id: str
    weight_grams: int
    status: Status = Status.LABELLED
    # Grows with each transition, so that a late webhook can be detected.
    version: int = 1
    create_time: str
    update_time: str


def new(*, reference: str, weight_grams: int) -> Consignment:
    """Return a labelled consignment."""
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


def transitions(status: Status, to: Status | None) -> list[Status]:
    """Return the statuses up to `to`, or the next one. Raises ApiError when there is no way to it."""
    if to in OTHER_TRANSITIONS.get(status, ()):
        return [to] if to else []
    ahead = DELIVERY_PATH[DELIVERY_PATH.index(status) + 1 :] if status in DELIVERY_PATH else ()
    if to is None and ahead:
        return [ahead[0]]
    if to not in ahead:
        raise ApiError(409, "move_not_possible", f"the consignment is {status}", param="to")
    return list(ahead[: ahead.index(to) + 1])


def transition_to(consignment: Consignment, to: Status) -> Consignment:
    """Return the consignment in its next status."""
    return replace(consignment, status=to, version=consignment.version + 1, update_time=timestamp())


def find(store: SqliteStore, *, consignment_id: str | None = None, reference: str | None = None) -> Consignment | None:
    """Return the consignment with this id or reference."""
    sql = "SELECT * FROM consignments WHERE id = :id OR reference = :reference"
    row = store.row(sql, id=consignment_id, reference=reference)
    return _from_row(row) if row else None


def in_transit(store: SqliteStore, *, moved_before: str) -> list[Consignment]:
    """Return the consignments on their way without a transition since then."""
    sql = """SELECT * FROM consignments WHERE update_time <= :moved_before
             AND status IN ('LABELLED', 'PICKED_UP', 'IN_TRANSIT', 'OUT_FOR_DELIVERY')"""
    return [_from_row(row) for row in store.rows(sql, moved_before=moved_before)]


def save(store: SqliteStore, consignment: Consignment) -> None:
    """Write the consignment and its last movement, in the caller's transaction."""
    store.execute(
        "INSERT INTO consignments VALUES (:id, :reference, :tracking_number, :label_id, :weight_grams,"
        " :status, :version, :create_time, :update_time) ON CONFLICT (id) DO UPDATE SET"
        " status = excluded.status, version = excluded.version, update_time = excluded.update_time",
        **asdict(consignment),
    )
    store.execute(
        "INSERT INTO movements (consignment_id, status, create_time) VALUES (:id, :status, :now)",
        id=consignment.id,
        status=consignment.status,
        now=consignment.update_time,
    )


def as_json(store: SqliteStore, consignment: Consignment) -> dict[str, Any]:
    """Return a consignment with all its movements; the address is not stored."""
    movements = store.rows(
        "SELECT status, create_time FROM movements WHERE consignment_id = :id ORDER BY sequence",
        id=consignment.id,
    )
    return asdict(consignment) | {"movements": [dict(movement) for movement in movements]}


def _from_row(row: Row) -> Consignment:
    return Consignment(**dict(row) | {"status": Status(row["status"])})
