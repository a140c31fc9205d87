"""Reads and writes signing keys as domain objects."""

from collections.abc import Collection

from chassis import Transaction
from svc_user.domain_keys import SigningKey
from svc_user.store import sql


async def lock_keys(tx: Transaction) -> list[SigningKey]:
    """Return all signing keys, the oldest first, locked against generation and deletion by other processes."""
    await tx.execute(sql.lock_keys)
    return await list_keys(tx)


async def list_keys(tx: Transaction) -> list[SigningKey]:
    """Return all signing keys, the oldest first."""
    return [
        SigningKey(
            id=row["key_id"],
            public_key=row["public_key"],
            private_key_ciphertext=row["sealed_private_key"],
            use_time=row["use_time"],
        )
        for row in await tx.fetch(sql.list_keys)
    ]


async def insert_key(tx: Transaction, key: SigningKey) -> None:
    """Insert a signing key."""
    await tx.execute(sql.insert_key, key.id, key.public_key, key.private_key_ciphertext, key.use_time)


async def delete_keys(tx: Transaction, keys: Collection[SigningKey]) -> None:
    """Delete signing keys."""
    await tx.execute(sql.delete_keys, [key.id for key in keys])
