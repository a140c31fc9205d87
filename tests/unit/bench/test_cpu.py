"""The harness counts what it says: the CPU time of processes with their children, and every call once."""

import asyncio
import subprocess
import sys

import pytest

from bench.cpu import Meter, Run, drive, table

BURN = "import time\nwhile time.process_time() < 0.4: pass\nprint('done', flush=True)\ninput()"
PARENT = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN!r}])\ninput()"


def burning(program):
    return subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_the_time_of_a_process_and_of_its_children_is_counted_and_of_nobody_else():
    with (
        burning("print('ready', flush=True)\ninput()") as idle,
        burning("import sys; sys.stdin.readline()\n" + PARENT) as busy,
    ):
        assert idle.stdout.readline() == "ready\n"
        meter = Meter({"idle": idle.pid, "busy": busy.pid})
        with meter:
            busy.stdin.write("go\n")
            busy.stdin.flush()
            assert busy.stdout.readline() == "done\n"
        idle.communicate("\n")
        busy.communicate("\n\n")
    assert 0.35 < meter.seconds["busy"] < 4
    assert meter.seconds["idle"] < 0.1
    assert meter.per_request(1000)["busy"] == pytest.approx(meter.seconds["busy"] * 1000)


async def test_as_many_calls_are_in_flight_as_asked_and_each_is_counted():
    now = most = made = 0

    async def call():
        nonlocal now, most, made
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.005)
        now -= 1
        made += 1

    run = await drive(call, waiting=7, seconds=0.3)
    assert (most, run.requests, len(run.latencies)) == (7, made, made)
    assert run.percentile(0) >= 5
    assert run.per_second == made / run.seconds


def test_runs_add_up():
    run = Run(2, 1.0, [0.1, 0.3])
    run += Run(2, 3.0, [0.2, 0.4])
    assert (run.requests, run.per_second, run.percentile(50), run.percentile(100)) == (4, 1.0, 300, 400)


def test_a_table_is_markdown():
    assert table(("way", "a second"), [("lane", 12345.6)]).splitlines() == [
        "| way  | a second |",
        "|------|----------|",
        "| lane | 12,346   |",
    ]
