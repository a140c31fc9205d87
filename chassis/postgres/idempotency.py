"""Idempotency: the reply is stored under the `request_id` (AIP-155) in the transaction of the change.

The row of a key can be inserted once, so of all requests with a key one commits its change; the others are rolled back
and get the stored reply or the stored error. One that arrives while the first commits waits for it. An error is stored
by a transaction of its own, after what led to it was rolled back: a crash between the two leaves the key free.
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
from chassis.postgres.database import UNAVAILABLE_ERRORS, Database, Record, Transaction
from shop.chassis.v1 import chassis_errors
from shop.errors import ShopError

Request = TypeVar("Request", bound=Message)
Reply = TypeVar("Reply", bound=Message)
P = ParamSpec("P")

_READ = "SELECT request_hash, response, error FROM idempotency WHERE principal = $1 AND method = $2 AND key = $3"
_STORE = """
INSERT INTO idempotency (principal, method, key, request_hash, response)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::bytea[])"""
_STORE_ERROR = """
INSERT INTO idempotency (principal, method, key, request_hash, error) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT DO NOTHING RETURNING true"""
#: How long a reply is stored, as docs/clients.md says.
RETENTION = timedelta(hours=48)

_CONFLICTS = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
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
        return await _retried(lambda is_first: _run(self.db, change, is_first=is_first))

    update_wrapper(rpc, handler)
    return rpc


async def idempotent(
    database: Database, request: Any, reply: type[Reply], change: Callable[[Transaction], Awaitable[Reply]]
) -> Reply:
    """Run `change` in a transaction, at most once for each (principal, RPC, request_id).

    A ShopError that `change` raises is final and stored; any other exception rolls back and leaves the key free. Raises
    IdempotencyKeyReused when the key came before with another request. Deadlocks are retried.
    """
    return await _retried(lambda is_first: _run_once(database, request, reply, change, is_first=is_first))


async def stored_reply(database: Database, request: Any, reply: type[Reply]) -> Reply | None:
    """Return the reply stored for this request, None when it is new; raises as `idempotent` does."""
    call = _call()
    async with database.connection() as connection:
        stored = await connection.fetchrow(_READ, *_key(call, request))
    return _replay(call, stored, _hash(request), reply) if stored else None


def is_replay() -> bool:
    """Return whether the current call got a stored reply: what followed the change's commit may not have happened."""
    return _REPLAYED in _call().trailers


async def _retried(run: Callable[[bool], Awaitable[Reply]]) -> Reply:
    """Run a change, which gets whether this is the first try, again after a conflict with another transaction."""
    for tries_left in reversed(range(_MAX_TRIES)):
        try:
            return await run(tries_left == _MAX_TRIES - 1)
        except _CONFLICTS:
            if not tries_left:
                raise
    raise AssertionError("the loop returns or raises")


async def _run(database: Database, change: Callable[[Transaction], Awaitable[Reply]], *, is_first: bool) -> Reply:
    async with database.transaction(optimistic=is_first) as tx:
        reply = await change(tx)
        assert_owner_checked()  # before the commit
        return reply


async def _run_once(
    database: Database,
    request: Any,
    reply: type[Reply],
    change: Callable[[Transaction], Awaitable[Reply]],
    *,
    is_first: bool,
) -> Reply:
    call = _call()
    key, request_hash = _key(call, request), _hash(request)
    failure: Exception
    try:
        async with database.transaction(optimistic=is_first) as tx:
            response = await change(tx)
            assert_owner_checked()  # before the commit
            tx.write(_STORE, (*key, request_hash, response.SerializeToString()))
    except (*_CONFLICTS, *UNAVAILABLE_ERRORS):
        raise
    except asyncpg.LockNotAvailableError:
        failure = chassis_errors.OperationInFlight()
    except ShopError as error:
        if await _store_error(database, call, key, request_hash, error):
            raise
        failure = error
    except Exception as error:  # noqa: BLE001  a change that is repeated may fail in any way
        failure = error
    else:
        return response
    if stored := await database.pool.fetchrow(_READ, *key):
        return _replay(call, stored, request_hash, reply)
    raise failure


async def _store_error(
    database: Database, call: Call, key: tuple[str, str, str], request_hash: bytes, error: ShopError
) -> bool:
    """Store the error that a change raised; return False when another request with the key has a result."""
    async with database.transaction() as tx:
        stored = await tx.fetchval(_STORE_ERROR, *key, request_hash, status_of(error).SerializeToString())
        if call.audit and stored:
            call.audit.outcome = error.reason
        elif call.audit:
            call.audit.row = {"replayed": True}
    return bool(stored)


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
