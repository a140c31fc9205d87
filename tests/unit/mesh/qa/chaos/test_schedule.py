"""Which faults a chaos run injects."""

from itertools import islice

import pytest

from mesh.errors import StackError
from mesh.qa.chaos.schedule import Fault, schedule, targets_of

PROCESSES = ["postgres", "redis", "payment_provider", "courier", "svc_order", "svc_payment", "edge_gateway", "ingress"]


def steps(seed, count, only=(), processes=PROCESSES):
    return list(islice(schedule(seed, targets_of(processes), only), count))


def test_a_seed_gives_the_same_faults_again_and_another_seed_others():
    assert steps(7, 40) == steps(7, 40)
    assert steps(7, 40) != steps(8, 40)


def test_every_round_has_each_fault_and_the_targets_take_turns():
    rounds = len(Fault)
    assert {step.fault for step in steps(1, rounds)} == set(Fault)
    kills = [step.target for step in steps(1, 6 * rounds) if step.fault is Fault.kill]
    assert sorted(kills) == sorted(set(PROCESSES) - {"postgres", "redis"})


def test_only_some_faults_can_be_chosen():
    assert {step.fault for step in steps(1, 20, [Fault.pause])} == {Fault.pause}


def test_what_a_stack_does_not_run_has_no_faults():
    found = {step.fault for step in steps(1, 40, processes=["svc_order", "edge_gateway"])}
    assert found == {Fault.kill, Fault.pause, Fault.restart}
    with pytest.raises(StackError, match="no process"):
        steps(1, 1, [Fault.redis_stop], ["svc_order"])
