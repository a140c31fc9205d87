"""Migrations that change rows: what was in progress before goes on after them."""

import shutil
from importlib.resources import files
from pathlib import Path

import asyncpg
import pytest

from chassis.postgres.migrate import migrate
from tests.integration.database_control import connected

ORDER = """
INSERT INTO orders (order_id, user_id, state, payment_state, fulfillment_state, currency, subtotal, shipping_fee,
    tax_total, total, shipping_address, slot_id, reservation_id, payment_id, shipment_id, version, create_time,
    update_time)
VALUES ($1, 'user-1', 'CONFIRMED', 'AUTHORIZED', 'ALLOCATED', 'THB', 100, 0, 0, 100, '', '', 'r-' || $1, 'p-' || $1,
    $2, 1, now(), now())"""
SAGA = """
INSERT INTO saga (saga_id, order_id, state, step, attempts, next_attempt_time, version, payment_method_token,
    create_time, update_time)
VALUES ('saga-' || $1, $1, 'RUNNING', $2, 0, 'infinity', 1, '', now(), now())"""


async def test_a_shipment_that_was_requested_before_it_was_a_step_is_created_by_the_step(fresh_database, tmp_path):
    package = tmp_path / "svc_order"
    (package / "migrations").mkdir(parents=True)
    async with fresh_database("chassis") as url, connected(url) as rows:
        for script in sorted(Path(str(files("svc_order"))).glob("migrations/*.sql")):
            if script.name.startswith("0004"):
                for order_id, shipment_id, step in (
                    ("requested", "shipment-1", "await_shipment"),
                    ("waiting", "", "await_shipment"),
                    ("departed", "shipment-2", "capture_payment"),
                ):
                    await rows.execute(ORDER, order_id, shipment_id)
                    await rows.execute(SAGA, order_id, step)
            shutil.copy(script, package / "migrations")
            await migrate(url, package)
        sagas = await rows.fetch(
            "SELECT order_id, step, version, next_attempt_time <= now() AS due FROM saga ORDER BY 1"
        )
    assert [tuple(saga) for saga in sagas] == [
        ("departed", "capture_payment", 1, False),
        ("requested", "create_shipment", 2, True),
        ("waiting", "await_shipment", 1, False),
    ]


async def test_the_history_of_an_order_is_append_only(fresh_database):
    async with fresh_database("svc_order") as url:
        connection = await asyncpg.connect(url)
        for change in ("UPDATE order_history SET reason = 'x'", "DELETE FROM order_history"):
            with pytest.raises(asyncpg.RaiseError, match="append-only"):
                await connection.execute(change)
        await connection.close()
