"""New passwords for forgotten ones: a request, a message with a code, and the new password with that code.

A request reads no account: it writes a row for any email address, so its reply takes the same time if none has it. The
job of the row then looks for the account, makes the code and sends it, and is resumed until the sender has answered.
"""

import hashlib
import hmac
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from chassis import Database, Record, Transaction, current_time, outbox
from chassis.external.api import CallResult, Unknown
from chassis.work.worker import Worker
from shop.user.v1.user_errors import PasswordResetInvalid
from svc_user import converters, domain_resets, store, store_logins, store_resets, store_sessions
from svc_user.crypto import decrypt, digest, encrypt
from svc_user.domain_logins import LoginClient
from svc_user.domain_resets import ALPHABET, LENGTH, VALIDITY, ResetCode, ResetMessage
from svc_user.domain_sessions import SessionEndReason
from svc_user.message_sender import MessageSender

log = logging.getLogger(__name__)

_LEASE = timedelta(seconds=15)


@dataclass(frozen=True, slots=True)
class NothingToSend:
    """No account has the email address, or the code has expired."""


Result = CallResult[str] | NothingToSend


class PasswordResets:
    """Requests for new passwords. Implements `chassis.work.worker.Jobs` for their messages."""

    def __init__(self, db: Database, secret: bytes, sender: MessageSender | None) -> None:
        """Encrypt with a key derived from `secret`; without a sender, requests are accepted and nothing is sent."""
        self._db = db
        self._key = hashlib.sha256(b"shopmesh password reset\0" + secret).digest()
        self._sender = sender
        self.lease = _LEASE
        #: Sends the messages.
        self.worker: Worker[ResetMessage, Result] = Worker(db, self, name="messages", concurrency=4)

    async def request(self, email: str) -> None:
        """Write a request, unless the pause after the last one goes on."""
        email_digest = digest(email)
        sealed = encrypt(self._key, email.encode(), email_digest.hex())
        async with self._db.transaction() as tx:
            before = await store_resets.lock_reset(tx, email_digest)
            if domain_resets.accepts_request(before, await current_time(tx)):
                await store_resets.save_request(tx, email_digest, sealed)
        self.worker.wake()

    async def check_code(self, email: str, code: str) -> str:
        """Count a try of a code, and return its user; raises PasswordResetInvalid."""
        async with self._db.transaction() as tx:
            now = await current_time(tx)
            reset = await store_resets.count_try(tx, digest(email))
        return domain_resets.redeem(reset, self._code_digest(email, code), now)

    async def set_password(self, tx: Transaction, user_id: str, email: str, code: str, password_hash: str) -> None:
        """Set a password with a code that was checked, and end all sessions; raises PasswordResetInvalid if used."""
        account = await store.lock_account(tx, user_id)
        if not await store_resets.delete_code(tx, digest(email), self._code_digest(email, code)):
            raise PasswordResetInvalid
        await store.update_password_hash(tx, account.id, password_hash)
        await store_sessions.end_sessions(tx, account.id, SessionEndReason.PASSWORD_CHANGED)
        await store_logins.delete_throttles(tx, [LoginClient.of(email, "", "").by_email])
        await outbox.add(tx, converters.user_password_changed_event(account))

    async def list_due(self, tx: Transaction, limit: int) -> Sequence[str]:
        """Return the requests whose messages are due, the most overdue first."""
        return [email_digest.hex() for email_digest in await store_resets.list_due(tx, limit)]

    async def claim(self, tx: Transaction, job_id: str) -> ResetMessage | None:
        """Claim the message of a request for the length of the lease, with its code; return None when it is not due."""
        row = await store_resets.claim(tx, bytes.fromhex(job_id), _LEASE)
        if row is None:
            return None
        email = decrypt(self._key, row["sealed_email"], job_id).decode()
        code, expire_time = await self._code_of(tx, row, email)
        return ResetMessage(
            id=job_id,
            attempt=row["attempts"],
            traceparent=row["traceparent"],
            email=email,
            code=code,
            expire_time=expire_time,
        )

    async def renew(self, tx: Transaction, job: ResetMessage) -> None:
        """Extend the claim by another lease, unless it was lost."""
        await store_resets.renew(tx, bytes.fromhex(job.id), job.attempt, _LEASE)

    async def execute(self, job: ResetMessage) -> Result:
        """Send the message, at most once for each code."""
        if job.code is None or self._sender is None:
            return NothingToSend()
        key = self._code_digest(job.email, job.code).hex()
        return await self._sender.send_reset_code(key=key, email=job.email, code=job.code, expire_time=job.expire_time)

    async def settle(self, tx: Transaction, job: ResetMessage, result: Result) -> None:
        """Erase the sealed address and code; without an answer, the next attempt is due after a pause."""
        if isinstance(result, Unknown):
            log.warning("message sender does not answer", extra={"cause": result.cause})
            await store_resets.renew(tx, bytes.fromhex(job.id), job.attempt, domain_resets.pause(job.attempt))
        else:
            await store_resets.finish(tx, bytes.fromhex(job.id), job.attempt)

    async def _code_of(self, tx: Transaction, row: Record, email: str) -> tuple[str | None, datetime]:
        """Return the code of a claimed request, made by its first claim, and when it expires; None for nobody's."""
        now = await current_time(tx)
        if row["sealed_code"]:
            code = decrypt(self._key, row["sealed_code"], email).decode()
            return code if now < row["expire_time"] else None, row["expire_time"]
        account, expire_time = await store.find_account(tx, email), now + VALIDITY
        if account is None:
            return None, expire_time
        code = "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))
        sealed = encrypt(self._key, code.encode(), email)
        stored = ResetCode(user_id=account.id, digest=self._code_digest(email, code), expire_time=expire_time)
        await store_resets.save_code(tx, row["email_digest"], stored, sealed)
        await outbox.add(tx, converters.user_password_reset_requested_event(account, expire_time))
        return code, expire_time

    def _code_digest(self, email: str, code: str) -> bytes:
        text = f"{email}\0{domain_resets.normalize_code(code)}"
        return hmac.digest(self._key, text.encode(), "sha256")
