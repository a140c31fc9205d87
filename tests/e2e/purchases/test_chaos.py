"""A short chaos run: faults in a seeded order, and a shop in which every invariant holds afterwards."""

import json
from itertools import islice

from mesh.qa.chaos.schedule import Fault, schedule, targets_of

SEED = 7
FAULTS = (Fault.kill, Fault.pause, Fault.redis_stop, Fault.end_sessions, Fault.lost_replies)


def test_every_invariant_holds_after_faults_of_a_seeded_order(stack, tmp_path):
    history = tmp_path / "history.jsonl"
    only = [word for fault in FAULTS for word in ("--only", fault.value)]
    size = ("--seconds", "10", "--seed", str(SEED), "--concurrency", "3", "--history", str(history))
    report = stack.json("chaos", *size, *only)
    assert report["violated"] == []
    assert (report["ok"], report["seed"]) == (True, SEED)
    processes = [one.name for one in stack.state.read().processes]
    expected = islice(schedule(SEED, targets_of(processes), FAULTS), len(report["faults"]))
    assert [(one["fault"], one["target"]) for one in report["faults"]] == [(one.fault, one.target) for one in expected]
    assert report["faults"]
    assert all(one["ready_seconds"] <= one["served_seconds"] for one in report["faults"])
    assert report["load"]["orders"].get("CONFIRMED")
    kinds = [json.loads(line)["kind"] for line in history.read_text().splitlines()]
    assert kinds.count("fault") == kinds.count("heal") == len(report["faults"])


def test_a_fault_that_does_not_exist_is_an_error(stack):
    done = stack.run("chaos", "--only", "earthquake")
    assert done.returncode == 2
    assert "--only" in done.stderr
