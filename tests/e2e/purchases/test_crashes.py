"""Processes are killed under load. Afterwards nothing is lost, held, oversold or paid twice."""

import asyncio
import os
import signal
import time

from tests.e2e.purchases.databases import database
from tests.e2e.shopping import all_is_well, back, patiently, record_of, shopping

#: Steps that a process has begun and not ended since it started; $1 is when that was.
UNDER_WAY = """
SELECT CASE state WHEN 'COMPENSATING' THEN 'undo ' ELSE '' END || step FROM saga
WHERE state IN ('RUNNING', 'COMPENSATING') AND attempts > 0 AND next_attempt_time > now()
    AND step NOT IN ('await_shipment', 'await_pickup') AND update_time > $1"""
#: Where it is killed, one after the other: at every step, and wherever one is undone.
TARGETS = (
    "reserve_stock",
    "book_slot",
    "authorize_payment",
    "confirm_reservation",
    "create_shipment",
    "capture_payment",
    "fulfill_reservation",
    "undo authorize_payment",
    "undo book_slot",
    "undo reserve_stock",
)
#: After so long a kill takes any step: what shoppers do is left to chance.
PATIENCE = 20.0


async def orders_made(connection):
    return await connection.fetchval("SELECT count(*) FROM orders")


async def kill_at(stack, connection, target):
    """Kill svc_order while some saga is at this step; returns the steps that were under way.

    It is frozen before the database is asked, so that what is read is where it is killed.
    """
    began, since = time.monotonic(), await connection.fetchval("SELECT now()")
    pid = record_of(stack, "svc_order").pid
    while True:
        os.kill(pid, signal.SIGSTOP)
        steps = [row[0] for row in await connection.fetch(UNDER_WAY, since)]
        waited = time.monotonic() - began
        if target in steps or (steps and waited > PATIENCE):
            os.kill(pid, signal.SIGKILL)
            return steps
        os.kill(pid, signal.SIGCONT)
        assert waited < 60, "nobody buys anything"
        await asyncio.sleep(0.003)


async def test_svc_order_killed_between_steps_ten_times_completes_every_order(stack, tmp_path):
    met, restarts = set(), record_of(stack, "svc_order").restarts
    async with database(stack, "shop_order") as connection:
        before = await orders_made(connection)
        with shopping(stack, tmp_path, "--mix", "faults", "--concurrency", "4") as load:
            for kill, target in enumerate(TARGETS, 1):
                met |= set(await kill_at(stack, connection, target))
                await back(stack, "svc_order", restarts + kill)
            while await orders_made(connection) - before < 50:
                await asyncio.sleep(0.1)
            info = await asyncio.to_thread(load.end)
        await all_is_well(stack, load.history)
        assert await connection.fetchval("SELECT count(*) FROM orders WHERE state = 'PENDING'") == 0
    assert met >= set(TARGETS)
    assert info["requests"]["order"]["unknown"] > 0


async def test_every_other_process_killed_once_leaves_every_order_complete(stack, tmp_path):
    names = [one.name for one in stack.state.read().processes if one.name not in ("svc_order", "postgres", "redis")]
    with shopping(stack, tmp_path, "--mix", "faults", "--concurrency", "4") as load:
        await patiently(lambda: load.history.exists() and load.history.stat().st_size)
        for name in names:
            restarts = record_of(stack, name).restarts
            stack.kill(name)
            await back(stack, name, restarts + 1)
        info = await asyncio.to_thread(load.end)
    assert info["orders"].get("CONFIRMED")
    await all_is_well(stack, load.history)


async def test_redis_killed_loses_no_event(stack, tmp_path):
    restarts = record_of(stack, "redis").restarts
    with shopping(stack, tmp_path, "--mix", "deliver", "--concurrency", "4") as load:
        await patiently(lambda: load.history.exists() and load.history.stat().st_size)
        stack.kill("redis")
        await back(stack, "redis", restarts + 1)
        seen = load.history.stat().st_size
        await patiently(lambda: load.history.stat().st_size > seen + 5_000)
        info = await asyncio.to_thread(load.end)
    assert info["orders"].get("CONFIRMED")
    await all_is_well(stack, load.history)


async def test_postgres_stopped_under_load_loses_no_acknowledged_order(stack, tmp_path):
    with shopping(stack, tmp_path, "--mix", "faults", "--concurrency", "4") as load:
        for _ in range(2):
            await patiently(lambda: load.history.exists() and load.history.stat().st_size)
            restarts = record_of(stack, "postgres").restarts
            os.kill(record_of(stack, "postgres").pid, signal.SIGQUIT)  # "immediate": no checkpoint, no goodbye
            await back(stack, "postgres", restarts + 1)
            seen = load.history.read_text().count('"outcome": "ok"')
            await patiently(lambda: load.history.read_text().count('"outcome": "ok"') > seen + 5)  # noqa: B023
        info = await asyncio.to_thread(load.end)
    assert info["requests"]["order"]["unknown"] > 0
    await all_is_well(stack, load.history)


async def test_after_all_crashes_every_process_is_ready(stack):
    await patiently(lambda: {one.state for one in stack.state.read().processes} == {"ready"})
