"""The dispatch of a shipment to the courier, with a failure at each step."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import fields, replace
from importlib.resources import files
from pathlib import Path

import pytest

from chassis import Database, current_call, current_time
from chassis.external.api import Refused, Unknown
from chassis.postgres.migrate import migrate
from chassis.telemetry import trace_id
from chassis.testing import as_user, eventually
from shop.delivery.v1 import shipment_service_pb2 as pb
from svc_delivery.converters_shipment import shipment_from_request
from svc_delivery.courier import Courier
from svc_delivery.dispatch import Dispatch
from tests.integration.database_control import connected
from tests.integration.svc_delivery.conftest import shipment_id, shipment_request
from tests.integration.svc_delivery.courier_webhooks import CourierWebhooks

SHIPMENT = """
INSERT INTO shipment (shipment_id, order_id, user_id, state, shipping_address, slot_id, weight_grams, version,
    create_time, update_time)
VALUES ('shipment-1', 'with-shipment', 'user-1', 'CREATED', '', '', 1, 1, now(), now())"""

LABELLED = pb.SHIPMENT_STATE_LABELLED


@pytest.fixture
def state_of(rows, order_id):
    """Read the state of the order's shipment from its row, None while it has none."""
    return lambda: rows.fetchval("SELECT state FROM shipment WHERE order_id = $1", order_id)


async def expire_leases(rows):
    """Make every job due, as if its lease or its pause had ended."""
    await rows.execute("UPDATE dispatch SET next_attempt_time = now() - interval '1 second'")


async def test_a_failed_courier_call_is_retried_until_it_succeeds(ship, courier, state_of, rows):
    await courier.inject_faults(next=["create_500", "create_500"])
    shipment = await ship()
    assert (shipment.state, shipment.tracking_number) == (pb.SHIPMENT_STATE_CREATED, "")
    await expire_leases(rows)
    await eventually(state_of, lambda state: state == "LABELLED")
    assert len(await courier.consignments(shipment.shipment_id)) == 1
    assert await rows.fetchval("SELECT count(*) FROM dispatch") == 0


@pytest.mark.parametrize(
    ("fault", "courier_timeout"), [("create_500_then_done", 7.0), ("create_timeout_then_done", 0.5)]
)
async def test_after_a_lost_answer_the_parcel_is_looked_up_and_not_created_twice(ship, courier, state_of, rows, fault):
    await courier.inject_faults(next=[fault])
    shipment = await ship()
    assert shipment.state == pb.SHIPMENT_STATE_CREATED
    (made,) = await eventually(lambda: courier.consignments(shipment.shipment_id), len)
    await eventually(state_of, lambda state: state == "LABELLED")
    assert await courier.consignments(shipment.shipment_id) == [made]
    assert await rows.fetchval("SELECT tracking_number FROM shipment") == made["tracking_number"]


async def test_a_webhook_before_the_answer_ends_the_dispatch(ship, courier, app, state_of, rows):
    await courier.inject_faults(next=["create_500_then_done"])
    shipment = await ship()
    await rows.execute("UPDATE dispatch SET next_attempt_time = now() + interval '1 hour'")
    await CourierWebhooks(app.address).send(await courier.advance(shipment.shipment_id, "PICKED_UP"))
    assert await state_of() == "PICKED_UP"
    assert await rows.fetchval("SELECT count(*) FROM dispatch") == 0


@pytest.mark.parametrize("rejection", [{"postal_code": "00000"}, {"fault": "declined"}])
async def test_a_shipment_that_the_courier_rejects_is_failed_and_can_be_returned(
    ship, update_status, courier, rejection
):
    await courier.inject_faults(next=[rejection["fault"]] if "fault" in rejection else [])
    shipment = await ship(**{name: value for name, value in rejection.items() if name != "fault"})
    assert shipment.state == pb.SHIPMENT_STATE_FAILED
    assert shipment.updates[-1].note == "The courier does not take this parcel."
    assert await ship() == shipment
    assert (await update_status(shipment, pb.SHIPMENT_STATE_RETURNED)).state == pb.SHIPMENT_STATE_RETURNED


async def test_a_repeated_request_looks_up_a_lost_answer_at_once(ship, courier, rows):
    await courier.inject_faults(next=["create_500_then_done"])
    first = await ship()
    await rows.execute("UPDATE dispatch SET next_attempt_time = now() + interval '1 hour'")
    second = await ship()
    assert (first.state, second.state) == (pb.SHIPMENT_STATE_CREATED, LABELLED)
    assert len(await courier.consignments(first.shipment_id)) == 1
    assert await rows.fetchval("SELECT count(*) FROM dispatch") == 0


class Steps:
    """The steps of a dispatch one by one: a process that dies after one leaves its rows so."""

    def __init__(self, settings, db, dispatch):
        self.settings = settings
        self.db = db
        self.dispatch = dispatch

    async def create(self, order_id, *, lease_expired=True):
        async with self.db.transaction() as tx:
            shipment = shipment_from_request(shipment_request(order_id), await current_time(tx))
            await self.dispatch.create_shipment(tx, shipment, "staff-1")
        if lease_expired:
            await self.db.pool.execute("UPDATE dispatch SET next_attempt_time = now() WHERE order_id = $1", order_id)


@pytest.fixture
async def steps(settings):
    courier = Courier(url=settings.courier_url, key=settings.courier_key, timeout=settings.courier_timeout)
    async with Database.open(settings.database_url, 2) as db:
        yield Steps(settings, db, Dispatch(courier))
    await courier.aclose()


async def test_a_dispatch_is_resumed_after_the_process_has_died(steps, order_id, replica, rows):
    await steps.create(order_id)
    async with replica():
        await eventually(lambda: rows.fetchval("SELECT state FROM shipment"), lambda state: state == "LABELLED")
    actors = await rows.fetch("SELECT actor FROM shipment_update ORDER BY version")
    assert [row["actor"] for row in actors] == ["staff-1", "courier"]
    assert await rows.fetchval("SELECT count(*) FROM outbox") == 2


async def test_an_attempt_that_lost_its_claim_writes_nothing(steps, order_id, rows):
    await steps.create(order_id)
    first = await claim(steps, order_id)
    result = await steps.dispatch.execute(first)
    await expire_leases(rows)
    second = await claim(steps, order_id)
    assert (second.attempt, second.shipment) == (first.attempt + 1, first.shipment)
    job = await rows.fetchrow("SELECT * FROM dispatch")
    for late in (result, Refused("address_rejected"), Unknown("timeout"), None):
        async with steps.db.transaction() as tx:
            await steps.dispatch.renew(tx, first)
            assert await steps.dispatch.settle(tx, first, late) is None
    assert await rows.fetchval("SELECT state FROM shipment") == "CREATED"
    assert await rows.fetchrow("SELECT * FROM dispatch") == job
    async with steps.db.transaction() as tx:
        await steps.dispatch.settle(tx, second, await steps.dispatch.execute(second))
    assert await rows.fetchval("SELECT state FROM shipment") == "LABELLED"


async def test_the_events_of_a_resumed_dispatch_have_the_trace_of_its_request(steps, order_id, replica, rows):
    with as_user():
        requested = trace_id(current_call().traceparent)
        await steps.create(order_id)
    async with replica():
        await eventually(lambda: rows.fetchval("SELECT count(*) FROM dispatch"), lambda count: count == 0)
    published = await rows.fetch("SELECT traceparent FROM outbox")
    assert [trace_id(row["traceparent"]) for row in published] == [requested] * 2


async def test_a_repeated_request_leaves_an_attempt_in_progress_alone(steps, ship, order_id, rows):
    await steps.create(order_id, lease_expired=False)
    job = await rows.fetchrow("SELECT * FROM dispatch")
    for _ in range(3):
        assert (await ship()).state == pb.SHIPMENT_STATE_CREATED
    assert await rows.fetchrow("SELECT * FROM dispatch") == job


async def claim(steps, order_id):
    async with steps.db.transaction() as tx:
        return await steps.dispatch.claim(tx, order_id)


async def test_two_processes_ship_each_order_once(steps, order_id, replica, courier, rows):
    names = [f"{order_id}-{number}" for number in range(12)]
    for name in names:
        await steps.create(name)
    async with replica(), replica():
        await eventually(lambda: rows.fetchval("SELECT count(*) FROM dispatch"), lambda count: count == 0)
    assert await rows.fetchval("SELECT count(*) FROM shipment WHERE state = 'LABELLED'") == 12
    assert await rows.fetchval("SELECT count(*) FROM outbox") == 24
    found = await asyncio.gather(*(courier.consignments(shipment_id(name)) for name in names))
    assert [len(one) for one in found] == [1] * 12


@contextmanager
def process_of(settings, **streams):
    """Run the service as a process of its own, as the stack starts it."""
    env = {field.name.upper(): str(getattr(settings, field.name)) for field in fields(settings)}
    process = subprocess.Popen(
        [sys.executable, "-m", "svc_delivery"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)} | env,
        **{"stderr": subprocess.DEVNULL} | streams,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=10)


async def test_a_process_killed_during_the_courier_call_leaves_one_parcel_and_the_next_process_finds_it(
    steps, order_id, replica, courier, rows
):
    await courier.inject_faults(next=["create_timeout_then_done"])
    await steps.create(order_id)
    with process_of(replace(steps.settings, courier_timeout=60.0)) as process:
        (made,) = await eventually(lambda: courier.consignments(shipment_id(order_id)), len)
        assert await rows.fetchval("SELECT state FROM shipment") == "CREATED"
        process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(process.wait, 10)
    await expire_leases(rows)
    async with replica():
        await eventually(lambda: rows.fetchval("SELECT state FROM shipment"), lambda state: state == "LABELLED")
    assert await courier.consignments(shipment_id(order_id)) == [made]
    assert await rows.fetchval("SELECT consignment_id FROM shipment") == made["id"]


async def test_a_process_without_courier_settings_exits_and_names_the_setting(settings):
    for name, error in (
        ("courier_url", b"COURIER_URL is not set"),
        ("courier_webhook_secret", b"COURIER_WEBHOOK_SECRET is not set"),
    ):
        with process_of(replace(settings, **{name: ""}), stderr=subprocess.PIPE) as process:
            _, printed = await asyncio.to_thread(process.communicate, None, 60)
        assert process.returncode == 2
        assert error in printed


async def test_a_job_without_a_shipment_ends_when_svc_order_requests_shipments(fresh_database, tmp_path):
    package = tmp_path / "svc_delivery"
    (package / "migrations").mkdir(parents=True)
    job = "INSERT INTO dispatch (order_id, actor, attempts, next_attempt_time) VALUES ($1, 'staff-1', 1, now())"
    async with fresh_database("chassis") as url, connected(url) as rows:
        for script in sorted(Path(str(files("svc_delivery"))).glob("migrations/*.sql")):
            if script.name.startswith("0003"):
                await rows.execute(SHIPMENT)
                await rows.execute(job, "with-shipment")
                await rows.execute(job, "without-shipment")
            shutil.copy(script, package / "migrations")
            await migrate(url, package)
        assert [row["order_id"] for row in await rows.fetch("SELECT order_id FROM dispatch")] == ["with-shipment"]
