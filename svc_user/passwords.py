"""Password hashes by argon2id, a few at a time: each takes 19 MiB and some 20 ms of a core, whoever asks for it."""

import asyncio
import secrets
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

from chassis.postgres.database import Overloaded

T = TypeVar("T")

#: What OWASP names as the least for argon2id.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)


class Passwords:
    """Makes and checks hashes on threads of its own, so that the loop goes on and memory stays bounded."""

    def __init__(self, *, threads: int, waiting: int) -> None:
        """At most `threads` hashes are computed at once and `waiting` more wait; who comes then is refused."""
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._places = threads + waiting
        #: Checked where there is no account, so that the answer takes as long as for a wrong password.
        self._decoy = _HASHER.hash(secrets.token_hex())

    async def hash(self, password: str) -> str:
        """Return a hash to store; raises Overloaded."""
        return await self._compute(lambda: _HASHER.hash(_prepared(password)))

    async def verify(self, password: str, stored: str | None) -> bool:
        """Tell whether the password is the one that was hashed; without a hash it never is. Raises Overloaded."""
        right = await self._compute(lambda: _verify(self._decoy if stored is None else stored, password))
        return right and stored is not None

    def outdated(self, stored: str) -> bool:
        """Tell whether a hash was made with other parameters than are in force now."""
        return _HASHER.check_needs_rehash(stored)

    async def close(self) -> None:
        """Compute nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _compute(self, work: Callable[[], T]) -> T:
        if self._places == 0:
            raise Overloaded
        self._places -= 1
        try:
            # A caller that gives up while waiting is cancelled, and its work leaves the queue with it.
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._places += 1


def _verify(stored: str, password: str) -> bool:
    try:
        return _HASHER.verify(stored, _prepared(password))
    except (VerifyMismatchError, InvalidHashError):
        return False


def _prepared(password: str) -> bytes:
    """Fold spellings of the same characters, which depend on the keyboard and the system (NIST SP 800-63B)."""
    return unicodedata.normalize("NFKC", password).encode()
