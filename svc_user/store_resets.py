"""Reads and writes requests for a new password, and the jobs that send their messages: the rows of `password_reset`."""

from collections.abc import Sequence
from datetime import timedelta

from chassis import Record, Transaction, current_call
from svc_user.domain_resets import PasswordReset, ResetCode
from svc_user.store import sql


async def lock_reset(tx: Transaction, email_digest: bytes) -> PasswordReset | None:
    """Return the last request of an email address, locked until this transaction ends."""
    row = await tx.fetchrow(sql.lock_reset, email_digest)
    return _reset_from_row(row) if row else None


async def save_request(tx: Transaction, email_digest: bytes, sealed_email: bytes) -> None:
    """Replace the last request of an email address, whose code is no longer valid, by one that is due."""
    call = current_call()
    await tx.execute(sql.save_reset_request, email_digest, sealed_email, call.traceparent if call else "")


async def count_try(tx: Transaction, email_digest: bytes) -> PasswordReset | None:
    """Count a try of a code, whether there is one or not, and return the request with it."""
    row = await tx.fetchrow(sql.count_reset_try, email_digest)
    return _reset_from_row(row) if row else None


async def delete_code(tx: Transaction, email_digest: bytes, code_digest: bytes) -> bool:
    """Delete the request with this code; return False when another call did, or another request has replaced it."""
    return bool(await tx.fetchval(sql.delete_reset, email_digest, code_digest))


async def list_due(tx: Transaction, limit: int) -> Sequence[bytes]:
    """Return the requests whose messages are due, the most overdue first."""
    return [row["email_digest"] for row in await tx.fetch(sql.list_due_resets, limit)]


async def claim(tx: Transaction, email_digest: bytes, lease: timedelta) -> Record | None:
    """Claim the message of a request for the length of the lease; return None when it is not due."""
    return await tx.fetchrow(sql.claim_reset, email_digest, lease)


async def save_code(tx: Transaction, email_digest: bytes, code: ResetCode, sealed_code: bytes) -> None:
    """Write the code of a claimed request."""
    await tx.execute(sql.save_reset_code, email_digest, code.user_id, code.digest, sealed_code, code.expire_time)


async def renew(tx: Transaction, email_digest: bytes, attempt: int, lease: timedelta) -> None:
    """Extend a claim by another lease, unless it was lost."""
    await tx.execute(sql.renew_reset, email_digest, attempt, lease)


async def finish(tx: Transaction, email_digest: bytes, attempt: int) -> None:
    """End the job of a request, and erase the sealed address and code, unless the claim was lost."""
    await tx.execute(sql.finish_reset, email_digest, attempt)


def _reset_from_row(row: Record) -> PasswordReset:
    return PasswordReset(
        requests=row["requests"],
        request_time=row["request_time"],
        user_id=row["user_id"],
        code_digest=row["code_digest"],
        expire_time=row["expire_time"],
        tries=row["tries"],
    )
