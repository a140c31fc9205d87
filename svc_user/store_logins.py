"""Reads and writes the throttles of logins, and the clients that have logged in before."""

from collections.abc import Collection

from chassis import Transaction
from svc_user.domain_logins import LoginThrottle
from svc_user.store import sql


async def lock_throttles(tx: Transaction, digests: Collection[bytes]) -> dict[bytes, LoginThrottle]:
    """Return throttles by their keys, locked until this transaction ends."""
    return {
        row["email_digest"]: LoginThrottle(failures=row["failures"], retry_time=row["retry_time"])
        for row in await tx.fetch(sql.lock_throttles, list(digests))
    }


async def update_throttle(tx: Transaction, key: bytes, throttle: LoginThrottle) -> None:
    """Write a throttle that was locked."""
    await tx.execute(sql.update_throttle, key, throttle.failures, throttle.retry_time)


async def delete_throttles(tx: Transaction, keys: Collection[bytes]) -> None:
    """Delete throttles."""
    await tx.execute(sql.delete_throttles, list(keys))


async def list_known_clients(tx: Transaction, keys: Collection[bytes]) -> set[bytes]:
    """Return which of these clients have logged in before."""
    return {row["client_digest"] for row in await tx.fetch(sql.list_login_clients, list(keys))}


async def insert_clients(tx: Transaction, keys: Collection[bytes]) -> None:
    """Remember clients that have logged in."""
    await tx.execute(sql.insert_login_clients, list(keys))
