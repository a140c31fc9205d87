"""Group commit: transactions that only write share a statement with those that wait while another is in flight.

A transaction that waits for no other is sent at once. The error of one fails no other: where a shared statement fails,
each is sent by itself.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass

from chassis.postgres.writes import Writes

_BATCH = 64
#: A statement that takes longer waits for a lock, perhaps: the next one does not wait for it.
_PATIENCE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class _Waiting:
    writes: Writes
    done: asyncio.Future[None]


class GroupCommit:
    """Commits transactions together."""

    def __init__(self, execute: Callable[[Writes, bool], Awaitable[None]], fatal: tuple[type[Exception], ...]) -> None:
        """`execute` commits a statement, and gets whether transactions share it; `fatal` errors concern all of them."""
        self._execute = execute
        self._fatal = fatal
        self._waiting: deque[_Waiting] = deque()
        self._in_flight: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def commit(self, writes: Writes) -> None:
        """Commit a transaction; raises its own error."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(writes, done))
        if self._in_flight is None:
            self._send_next()
        await done

    def _send_next(self) -> None:
        self._in_flight = None
        if self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            self._in_flight = self._start(batch)

    def _start(self, batch: Sequence[_Waiting]) -> asyncio.Task[None]:
        # A context of its own: it must not inherit the deadline of the caller that happens to be first.
        task = asyncio.create_task(self._send(batch), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _send(self, batch: Sequence[_Waiting]) -> None:
        task = asyncio.current_task()
        timer = asyncio.get_running_loop().call_later(_PATIENCE_SECONDS, self._release, task)
        try:
            await self._commit(batch)
        finally:
            timer.cancel()
            self._release(task)

    def _release(self, task: asyncio.Task[None] | None) -> None:
        if self._in_flight is task:
            self._send_next()

    async def _commit(self, batch: Sequence[_Waiting]) -> None:
        try:
            await self._execute(_merged(batch), len(batch) > 1)
        except asyncio.CancelledError:  # leaked out of a dependency: the outcome is unknown
            for one in batch:
                one.done.cancel()
        except Exception as error:  # noqa: BLE001  the error belongs to the callers
            if len(batch) > 1 and not isinstance(error, self._fatal):
                for one in batch:
                    self._start([one])
            else:
                for one in batch:
                    one.done.set_exception(error)
        else:
            for one in batch:
                one.done.set_result(None)


def _merged(batch: Sequence[_Waiting]) -> Writes:
    if len(batch) == 1:
        return batch[0].writes
    merged = Writes()
    for one in batch:
        merged.merge(one.writes)
    return merged
