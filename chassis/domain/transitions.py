"""State machines as data: the legal transitions and their effects."""

from collections import deque
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Generic, TypeVar

S = TypeVar("S", bound=Enum)
Effect = TypeVar("Effect")


class Transitions(Generic[S, Effect]):
    """The legal transitions of the states `S`, each with its effect; `None` where a transition needs none."""

    def __init__(self, edges: Mapping[tuple[S, S], Effect]) -> None:
        """Take the effect of each transition by its (from, to)."""
        self._edges = dict(edges)

    @classmethod
    def between(cls, targets: Mapping[S, Iterable[S]]) -> "Transitions[S, None]":
        """Return the transitions without effects that lead from each state to its `targets`."""
        return Transitions({(start, end): None for start, ends in targets.items() for end in ends})

    def allows(self, start: S, end: S) -> bool:
        """Return whether the transition is legal."""
        return (start, end) in self._edges

    def effect(self, start: S, end: S) -> Effect:
        """Return the effect of the transition; raises KeyError for an illegal one."""
        return self._edges[start, end]

    def targets(self, start: S) -> tuple[S, ...]:
        """Return the states that one transition leads to."""
        return tuple(end for begin, end in self._edges if begin is start)

    def is_final(self, state: S) -> bool:
        """Return whether no transition leads out of the state."""
        return not self.targets(state)

    def path(self, start: S, end: S) -> tuple[S, ...] | None:
        """Return a shortest path from `start`, exclusive, to `end`; None without a path."""
        paths: dict[S, tuple[S, ...]] = {start: ()}
        queue = deque([start])
        while queue and end not in paths:
            here = queue.popleft()
            for there in self.targets(here):
                if there not in paths:
                    paths[there] = (*paths[here], there)
                    queue.append(there)
        return paths.get(end)

    def diagram(self) -> str:
        """Return the state diagram in Mermaid's notation, from the states that no transition enters or the first."""
        states = dict.fromkeys(state for edge in self._edges for state in edge)
        entered = {end for _, end in self._edges}
        starts = [state for state in states if state not in entered] or [*states][:1]
        lines = [f"    [*] --> {state.name}" for state in starts]
        lines += [f"    {start.name} --> {end.name}" for start, end in self._edges]
        lines += [f"    {state.name} --> [*]" for state in states if self.is_final(state)]
        return "\n".join(("stateDiagram-v2", *lines))
