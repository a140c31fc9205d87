"""Password hashes by argon2id, a few at a time: each takes 19 MiB of memory and about 20 ms of a core."""

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

from chassis.postgres.database import Overloaded
from svc_user.domain_passwords import normalized

T = TypeVar("T")

#: The minimum that OWASP recommends for argon2id.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)


class Passwords:
    """Computes and verifies hashes on its own threads: the event loop is not blocked, and memory is bounded."""

    def __init__(self, *, threads: int, queue: int) -> None:
        """Compute at most `threads` hashes at once, and let at most `queue` more wait."""
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._capacity = threads + queue
        #: Verified where there is no account, so that the reply takes as long as for a wrong password.
        self._decoy = _HASHER.hash(secrets.token_hex())

    async def hash(self, password: str) -> str:
        """Return a hash to store; raises Overloaded."""
        return await self._compute(lambda: _HASHER.hash(_prepared(password)))

    async def verify(self, password: str, stored: str | None) -> bool:
        """Return whether a hash is that of the password, False without a hash; raises Overloaded."""
        verified = await self._compute(lambda: _verify(self._decoy if stored is None else stored, password))
        return verified and stored is not None

    def is_outdated(self, stored: str) -> bool:
        """Return whether a hash was computed with other parameters than the present ones."""
        return _HASHER.check_needs_rehash(stored)

    async def close(self) -> None:
        """Cancel the hashes that wait, and stop the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _compute(self, work: Callable[[], T]) -> T:
        if self._capacity == 0:
            raise Overloaded
        self._capacity -= 1
        try:
            # When the call is cancelled while its work waits, the work leaves the queue too.
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._capacity += 1


def _verify(stored: str, password: str) -> bool:
    try:
        return _HASHER.verify(stored, _prepared(password))
    except (VerifyMismatchError, InvalidHashError):
        return False


def _prepared(password: str) -> bytes:
    return normalized(password).encode()
