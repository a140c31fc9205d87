"""Idempotency: `request_id` (AIP-155) is claimed in the transaction of the change, and the reply is stored beside it.

A repeated request gets the stored reply or the stored error; one that arrives while the first is in progress waits for
it.
"""

import hashlib
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from functools import update_wrapper
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import asyncpg
from google.protobuf.message import Message
from google.rpc import status_pb2

from chassis.context import Call, Context, assert_owner_checked, current_call
from chassis.errors import error_from_status, status_of
from chassis.postgres.database import Database, Record, Transaction
from shop.chassis.v1 import chassis_errors
from shop.errors import ShopError

Request = TypeVar("Request", bound=Message)
Reply = TypeVar("Reply", bound=Message)
P = ParamSpec("P")

_CLAIM = """
INSERT INTO idempotency (principal, method, key, request_hash) VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING RETURNING true"""
_READ = "SELECT request_hash, response, error FROM idempotency WHERE principal = $1 AND method = $2 AND key = $3"
_STORE = """
UPDATE idempotency SET response = $4, error = $5 WHERE principal = $1 AND method = $2 AND key = $3"""
#: How long a reply is stored, as docs/clients.md says.
RETENTION = timedelta(hours=48)

_MAX_TRIES = 4
#: The trailer that marks a stored reply.
_REPLAYED = "idempotent-replayed"


class Servicer(Protocol):
    """A servicer whose handlers may be transactional."""

    db: Database


S = TypeVar("S", bound=Servicer)

Handler = Callable[Concatenate[S, Request, Transaction, P], Coroutine[Any, Any, Reply]]
Rpc = Callable[Concatenate[S, Request, Context, P], Coroutine[Any, Any, Reply]]


def transactional(handler: Handler[S, Request, P, Reply]) -> Rpc[S, Request, P, Reply]:
    """Run a handler in a transaction of `self.db`, which takes the place of gRPC's context among its arguments.

    The handler reads: lock, decide, save, publish. Where the request has a `request_id`, the change is made at most
    once for it (see `idempotent`). Deadlocks and serialization failures are retried with a new transaction.
    """
    signature = inspect.signature(handler, eval_str=True)
    reply: type[Reply] = signature.return_annotation
    request_type = list(signature.parameters.values())[1].annotation
    has_key = "request_id" in request_type.DESCRIPTOR.fields_by_name

    async def rpc(self: S, request: Request, _context: Context, /, *args: P.args, **kwargs: P.kwargs) -> Reply:
        async def change(tx: Transaction) -> Reply:
            return await handler(self, request, tx, *args, **kwargs)

        if has_key:
            return await idempotent(self.db, request, reply, change)
        return await _retried(lambda: _run(self.db, change))

    update_wrapper(rpc, handler)
    return rpc


async def idempotent(
    database: Database, request: Any, reply: type[Reply], change: Callable[[Transaction], Awaitable[Reply]]
) -> Reply:
    """Run `change` in a transaction, at most once for each (principal, RPC, request_id).

    A ShopError that `change` raises is final and stored; any other exception rolls back and leaves the key free. Raises
    IdempotencyKeyReused when the key came before with another request. Deadlocks are retried.
    """
    return await _retried(lambda: _run_once(database, request, reply, change))


async def stored_reply(database: Database, request: Any, reply: type[Reply]) -> Reply | None:
    """Return the reply stored for this request, None when it is new; raises as `idempotent` does."""
    call = _call()
    async with database.connection() as connection:
        stored = await connection.fetchrow(_READ, *_key(call, request))
    return _replay(call, stored, _hash(request), reply) if stored else None


def is_replay() -> bool:
    """Return whether the current call got a stored reply: what followed the change's commit may not have happened."""
    return _REPLAYED in _call().trailers


async def _retried(run: Callable[[], Awaitable[Reply]]) -> Reply:
    for tries_left in reversed(range(_MAX_TRIES)):
        try:
            return await run()
        except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError):
            if not tries_left:
                raise
    raise AssertionError("the loop returns or raises")


async def _run(database: Database, change: Callable[[Transaction], Awaitable[Reply]]) -> Reply:
    async with database.transaction() as tx:
        reply = await change(tx)
        assert_owner_checked()  # before the commit
        return reply


async def _run_once(
    database: Database, request: Any, reply: type[Reply], change: Callable[[Transaction], Awaitable[Reply]]
) -> Reply:
    call = _call()
    key, request_hash = _key(call, request), _hash(request)
    failure: ShopError | None = None
    async with database.transaction() as tx:
        if not await _claim(tx, key, request_hash):
            stored = await tx.fetchrow(_READ, *key)
            assert stored is not None, "the claim met this row"
            return _replay(call, stored, request_hash, reply)
        try:
            async with tx.transaction():  # a savepoint: the error is stored, what led to it is rolled back
                response = await change(tx)
                assert_owner_checked()  # before the commit
            await tx.execute(_STORE, *key, response.SerializeToString(), None)
        except ShopError as error:
            failure = error
            database.discard_callbacks(tx)
            if call.audit:
                call.audit.outcome = error.reason
            await tx.execute(_STORE, *key, None, status_of(error).SerializeToString())
    if failure:
        raise failure
    return response


async def _claim(tx: Transaction, key: tuple[str, str, str], request_hash: bytes) -> bool:
    """Claim the key, or return False when another request has; wait for a transaction that is claiming it."""
    try:
        return bool(await tx.fetchval(_CLAIM, *key, request_hash))
    except asyncpg.LockNotAvailableError:
        raise chassis_errors.OperationInFlight from None


def _call() -> Call:
    call = current_call()
    if call is None:
        raise LookupError("only a call has a request_id and a principal")
    return call


def _key(call: Call, request: Any) -> tuple[str, str, str]:
    return (_principal(call), call.method, request.request_id)


def _principal(call: Call) -> str:
    return call.user.id if call.user else call.caller


def _hash(request: Message) -> bytes:
    return hashlib.sha256(request.SerializeToString(deterministic=True)).digest()


def _replay(call: Call, stored: Record, request_hash: bytes, reply: type[Reply]) -> Reply:
    if stored["request_hash"] != request_hash:
        raise chassis_errors.IdempotencyKeyReused
    call.trailers[_REPLAYED] = "true"
    if call.audit:
        call.audit.row = {"replayed": True}
    if stored["error"] is not None:
        error = error_from_status(status_pb2.Status.FromString(stored["error"]))
        assert error is not None, "only errors with a reason are stored"
        raise error
    call.owner_checks.append(_principal(call))  # stored for this caller alone, whose first request was checked
    return reply.FromString(stored["response"])
