"""Which faults a run injects, in which order: a pure function of its seed and of what the stack consists of."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from mesh.errors import StackError

_PAUSES = (1.0, 4.0)  # seconds between the end of a fault and the next
_DURATIONS = (1.0, 5.0)  # seconds of a fault that has an end of its own


class Fault(StrEnum):
    """The faults."""

    kill = "kill"
    pause = "pause"
    restart = "restart"
    postgres_crash = "postgres-crash"
    end_sessions = "end-sessions"
    redis_stop = "redis-stop"
    outage = "outage"
    errors = "errors"
    lost_replies = "lost-replies"
    slow = "slow"
    webhooks = "webhooks"


#: The faults of the simulators of external APIs, as their API names them.
SIMULATED: Mapping[Fault, Mapping[str, object]] = {
    Fault.outage: {"outage": True},
    Fault.errors: {"error_rate": 0.5, "seed": 1},
    Fault.lost_replies: {"lost_answer_rate": 0.5, "seed": 1},
    Fault.slow: {"delay_ms": 1_500},
    Fault.webhooks: {"duplicate_webhooks": True, "reorder_webhooks": True},
}
_SIMULATORS = ("payment_provider", "courier")
_SERVERS = ("postgres", "redis", "kafka")


@dataclass(frozen=True, slots=True)
class Step:
    """One fault: injected after a pause, for some seconds where it does not end by itself."""

    pause: float
    fault: Fault
    target: str
    seconds: float


def targets_of(processes: Sequence[str]) -> dict[Fault, list[str]]:
    """Return what each fault can be injected into, of the processes of a stack."""
    own = [name for name in processes if name not in _SERVERS]
    targets = {
        Fault.kill: own,
        Fault.pause: [*own, *(name for name in processes if name == "redis")],
        Fault.restart: [name for name in own if name.startswith("svc_")],
        Fault.postgres_crash: [name for name in processes if name == "postgres"],
        Fault.end_sessions: [name for name in processes if name == "postgres"],
        Fault.redis_stop: [name for name in processes if name == "redis"],
    }
    targets |= {fault: [name for name in _SIMULATORS if name in processes] for fault in SIMULATED}
    return {fault: names for fault, names in targets.items() if names}


def schedule(seed: int, targets: Mapping[Fault, Sequence[str]], only: Sequence[Fault] = ()) -> Iterator[Step]:
    """Yield faults without end: in each round every fault once, into targets in turn.

    Raises StackError when no target is left.
    """
    faults = sorted(fault for fault in targets if not only or fault in only)
    if not faults:
        raise StackError("the stack has no process for these faults")
    random = Random(seed)  # noqa: S311  reproducible, guards nothing
    turns = {fault: _in_turn(targets[fault], random) for fault in faults}
    return _rounds(faults, turns, random)


def _rounds(faults: list[Fault], turns: Mapping[Fault, Iterator[str]], random: Random) -> Iterator[Step]:
    while True:
        random.shuffle(faults)
        for fault in faults:
            yield Step(random.uniform(*_PAUSES), fault, next(turns[fault]), random.uniform(*_DURATIONS))


def _in_turn(names: Sequence[str], random: Random) -> Iterator[str]:
    order = sorted(names)
    while True:
        random.shuffle(order)
        yield from order
