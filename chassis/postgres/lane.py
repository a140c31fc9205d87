"""The write lane: requests that arrive while a transaction is in flight share the next one.

Optimistic locking collapses when many requests update one hot row. The lane, a group commit, preserves the version
check and removes the contention: it passes all waiting requests to one `apply`, which reads the rows with their
versions, folds the requests over them in order, and writes each changed row once `WHERE version = read_version`. An
idle lane adds no wait.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Generic, TypeVar

import asyncpg

from chassis.cancellation import cancel_and_wait
from chassis.context import Call, current_call
from chassis.metrics import LANE_BATCH, LANE_CONFLICTS
from chassis.postgres.database import UNAVAILABLE_ERRORS
from chassis.telemetry import inject

Request = TypeVar("Request")
Reply = TypeVar("Reply")
Value = TypeVar("Value")

_BATCH = 256
_TRIES = 20


class VersionConflict(Exception):
    """Another process changed a row that the batch had read; nothing was written."""


class Batch(list[Request]):
    """Requests in arrival order, and beside each the call that made it and its trace."""

    traceparents: Sequence[str] = ()
    #: The call that made each, None where none did: `Database.audit` records the privileged ones.
    calls: Sequence[Call | None] = ()
    #: Whether an attempt met a VersionConflict: `apply` then locks what it reads, so that it gets its turn among any
    #: number of processes.
    had_conflict = False


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[Request, Reply]):
    request: Request
    traceparent: str
    call: Call | None
    reply: asyncio.Future[Reply]


class Lane(Generic[Request, Reply]):
    """Applies requests in batches, in arrival order, each with a reply or an error of its own.

    `apply` gets the requests and returns one outcome for each: a reply, or the exception that rejects that request. It
    commits before it returns, and raises VersionConflict to be called again with the same batch.
    """

    def __init__(self, apply: Callable[[Batch[Request]], Awaitable[Sequence[Reply | Exception]]]) -> None:
        """Make a lane; it starts a task of its own only while requests wait."""
        self._apply = apply
        self._waiting: deque[_Waiting[Request, Reply]] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def submit(self, request: Request) -> Reply:
        """Return the request's reply, or raise its error.

        A caller that is cancelled while it waits is dropped; once its batch is in flight the outcome is unknown to it.
        """
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(request, inject().get("traceparent", ""), current_call(), future))
        if self._worker is None or self._worker.done():
            # A context of its own: the batch must not inherit the first caller's deadline or identity.
            self._worker = asyncio.create_task(self._work(), context=Context())
        return await future

    async def close(self) -> None:
        """Cancel the batch in flight and those that wait: to their callers the outcome is unknown."""
        if self._worker is not None:
            await cancel_and_wait(self._worker)

    async def _work(self) -> None:
        while self._waiting:
            size = min(_BATCH, len(self._waiting))
            batch = [self._waiting.popleft() for _ in range(size)]
            if batch := [one for one in batch if not one.reply.done()]:
                await self._settle(batch)

    async def _settle(self, batch: Sequence[_Waiting[Request, Reply]]) -> None:
        try:
            requests = Batch(one.request for one in batch)
            requests.traceparents = [one.traceparent for one in batch]
            requests.calls = [one.call for one in batch]
            LANE_BATCH.observe(len(batch))
            outcomes = await self._attempt(requests)
        except asyncio.CancelledError:  # leaked out of a dependency: the batch's outcome is unknown
            for one in batch:
                one.reply.cancel()
            return
        except Exception as error:  # noqa: BLE001  the error belongs to the callers, not to the lane
            if len(batch) > 1 and not isinstance(error, UNAVAILABLE_ERRORS):
                await self._isolate(batch)
                return
            outcomes = [error] * len(batch)
        for one, outcome in zip(batch, outcomes, strict=True):
            if one.reply.done():
                continue
            if isinstance(outcome, Exception):
                one.reply.set_exception(outcome)
            else:
                one.reply.set_result(outcome)

    async def _isolate(self, batch: Sequence[_Waiting[Request, Reply]]) -> None:
        """Settle one by one: one poisoned request must not fail the others."""
        for one in batch:
            if not one.reply.done():
                await self._settle([one])

    async def _attempt(self, requests: Batch[Request]) -> Sequence[Reply | Exception]:
        for left in reversed(range(_TRIES)):
            try:
                outcomes = await self._apply(requests)
            except (VersionConflict, asyncpg.DeadlockDetectedError, asyncpg.SerializationError):
                LANE_CONFLICTS.inc()
                if not left:
                    raise
                requests.had_conflict = True
            else:
                if len(outcomes) != len(requests):
                    raise ValueError(f"{len(outcomes)} outcomes of {len(requests)} requests")
                return outcomes
        raise AssertionError("the loop returns or raises")


def shared_reads(read: Callable[[Collection[str]], Awaitable[Mapping[str, Value]]]) -> Lane[str, Value | None]:
    """Return a lane of reads by key: `submit` returns the value of a key, None when there is none.

    Each reader gets what a read returned that began after it came, and those that wait share the next one. `read` must
    not depend on the call.
    """

    async def apply(keys: Batch[str]) -> Sequence[Value | None]:
        values = await read(set(keys))
        return [values.get(key) for key in keys]

    return Lane(apply)
