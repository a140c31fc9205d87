"""Doing a change once: `request_id` (AIP-155) is claimed in the change's own transaction, with the answer beside it.

A repeated request gets the first answer, a refusal included; a second one that arrives meanwhile waits for the first.
"""

import hashlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

import asyncpg
from google.protobuf.message import Message
from google.rpc import status_pb2

from chassis.context import Call, current_call
from chassis.errors import error_from_status, status_of
from chassis.postgres.database import Database, Record, Transaction
from shop.chassis.v1 import chassis_errors
from shop.errors import ShopError

Reply = TypeVar("Reply", bound=Message)

_CLAIM = """
INSERT INTO idempotency (principal, method, key, request_hash) VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING RETURNING true"""
_READ = "SELECT request_hash, response, refusal FROM idempotency WHERE principal = $1 AND method = $2 AND key = $3"
_FINISH = """
UPDATE idempotency SET response = $4, refusal = $5 WHERE principal = $1 AND method = $2 AND key = $3"""
#: How long an answer is kept, as docs/clients.md promises.
RETENTION = timedelta(hours=48)

_TRIES = 4


async def idempotent(
    database: Database, request: Any, reply: type[Reply], change: Callable[[Transaction], Awaitable[Reply]]
) -> Reply:
    """Run `change` in a transaction, at most once for each (principal, RPC, request_id).

    Refusals that `change` raises are final and kept; anything else rolls back and leaves the key free. Raises
    IdempotencyKeyReused when the key came before with another request. Deadlocks are tried again.
    """
    for attempt in range(1, _TRIES + 1):
        try:
            return await _once(database, request, reply, change)
        except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError):
            if attempt == _TRIES:
                raise
    raise AssertionError("the loop returns or raises")


async def stored_reply(database: Database, request: Any, reply: type[Reply]) -> Reply | None:
    """Return the answer that this request got before, None when it is new; raises as `once` does."""
    call = _call()
    async with database.connection() as connection:
        stored = await connection.fetchrow(_READ, *_key(call, request))
    return _replay(call, stored, _hash(request), reply) if stored else None


async def _once(
    database: Database, request: Any, reply: type[Reply], change: Callable[[Transaction], Awaitable[Reply]]
) -> Reply:
    call = _call()
    key, request_hash = _key(call, request), _hash(request)
    refusal: ShopError | None = None
    async with database.transaction() as tx:
        if not await _claim(tx, key, request_hash):
            stored = await tx.fetchrow(_READ, *key)
            assert stored is not None, "the claim met this row"
            return _replay(call, stored, request_hash, reply)
        try:
            async with tx.transaction():  # a savepoint: the refusal stays, what led to it goes
                answer = await change(tx)
            await tx.execute(_FINISH, *key, answer.SerializeToString(), None)
        except ShopError as error:
            refusal = error
            await tx.execute(_FINISH, *key, None, status_of(error).SerializeToString())
    if refusal:
        raise refusal
    return answer


async def _claim(tx: Transaction, key: tuple[str, str, str], request_hash: bytes) -> bool:
    """Claim the key, or return False when it is taken; waits for whoever is about to take it."""
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
    return (call.user.id if call.user else call.caller, call.method, request.request_id)


def _hash(request: Message) -> bytes:
    return hashlib.sha256(request.SerializeToString(deterministic=True)).digest()


def _replay(call: Call, stored: Record, request_hash: bytes, reply: type[Reply]) -> Reply:
    if stored["request_hash"] != request_hash:
        raise chassis_errors.IdempotencyKeyReused
    call.trailers["idempotent-replayed"] = "true"
    if stored["refusal"] is not None:
        error = error_from_status(status_pb2.Status.FromString(stored["refusal"]))
        assert error is not None, "only refusals with a reason are stored"
        raise error
    return reply.FromString(stored["response"])
