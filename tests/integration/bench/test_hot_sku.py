"""Every way of the bench sells what it says, and its own check finds a counter that is wrong."""

import os

import pytest

from bench.cpu import Meter
from bench.hot_sku import FILL, WAYS, Outcome, judge, settle, share_beside_watchers, take
from chassis import Database


@pytest.fixture
async def database(fresh_database):
    async with fresh_database("svc_inventory") as url, Database.open(url, 4) as database:
        await database.pool.execute(FILL, 1_000_000, 10)
        yield database


@pytest.mark.parametrize("way", WAYS)
async def test_a_way_sells_and_leaves_counters_that_are_the_sum_of_their_movements(database, way):
    turn = Outcome(skus=3, waiting=8, way=way, meter=Meter({"postgres": os.getpid()}))
    await take(turn, database, seconds=0.2)
    assert turn.run.requests >= 8
    assert turn.row()[:3] == (3, 8, way)


async def test_a_counter_that_drifts_is_found(database):
    await WAYS["conditional UPDATE"](database)("S1")
    await database.pool.execute("UPDATE stock SET reserved = reserved + 1 WHERE sku = 'S1'")
    with pytest.raises(AssertionError, match="sum of their movements"):
        await settle(database)


def test_a_lane_that_is_not_much_faster_is_said_to_break_the_promise(capsys):
    speeds = {"version check": 100.0, "conditional UPDATE": 1000.0, "one statement": 1500.0}
    judge(speeds | {"lane, bare": 5000.0, "lane, svc_inventory": 4999.0})
    kept, broken = capsys.readouterr().out.strip().splitlines()
    assert kept.endswith("as promised")
    assert broken.endswith("PROMISE BROKEN")


async def test_the_share_that_watchers_leave_to_the_lane_is_measured(database):
    assert 0 < await share_beside_watchers(database, watchers=5, seconds=0.1, rounds=1) < 100
