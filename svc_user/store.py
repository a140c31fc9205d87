"""The users' rows: what the domain knows goes in and comes out; SQL stops here."""

from collections.abc import Collection, Sequence
from dataclasses import astuple
from datetime import datetime
from pathlib import Path

from chassis import Queries, Record, Transaction
from shop.user.v1.user_errors import UserNotFound
from svc_user.domain import (
    GRACE,
    Account,
    AddressBook,
    End,
    Place,
    RefreshToken,
    SavedAddress,
    Session,
    SigningKey,
    Throttle,
)

sql = Queries(Path(__file__).parent / "queries.sql")


async def read_now(tx: Transaction) -> datetime:
    """Return the transaction's time."""
    now: datetime = await tx.fetchval(sql.read_now)
    return now


async def insert_account(tx: Transaction, account: Account) -> bool:
    """Insert an account; tells whether it was, rather than found the email address taken."""
    row = await tx.fetchrow(
        sql.insert_account,
        account.id,
        account.email,
        account.password_hash,
        account.registration_id,
        account.display_name,
        account.phone,
        sorted(account.roles),
        account.version,
        account.create_time,
        account.update_time,
    )
    return row is not None


async def find_account(tx: Transaction, email: str) -> Account | None:
    """Return the account of an email address, if there is one."""
    row = await tx.fetchrow(sql.find_account, email)
    return _account_from_row(row) if row else None


async def find_signed_in(tx: Transaction, user_id: str, session_id: str) -> Account | None:
    """Return the account of a session, if it lives."""
    row = await tx.fetchrow(sql.read_signed_in, session_id, user_id)
    return _account_from_row(row) if row else None


async def read_account(tx: Transaction, user_id: str) -> Account:
    """Return an account; raises UserNotFound."""
    return _found(await tx.fetchrow(sql.read_account, user_id), user_id)


async def lock_account(tx: Transaction, user_id: str) -> Account:
    """Return an account, locked together with its address book until this transaction ends."""
    return _found(await tx.fetchrow(sql.lock_account, user_id), user_id)


async def lock_account_and_admins(tx: Transaction, user_id: str) -> tuple[Account, list[Account]]:
    """Return an account and all admins, locked until this transaction ends; raises UserNotFound."""
    rows = await tx.fetch(sql.lock_account_and_admins, user_id)
    account = _found(next((row for row in rows if row["user_id"] == user_id), None), user_id)
    return account, [one for one in map(_account_from_row, rows) if "admin" in one.roles]


async def update_account(tx: Transaction, account: Account) -> None:
    """Write an account that was locked."""
    await tx.execute(
        sql.update_account,
        account.id,
        account.display_name,
        account.phone,
        sorted(account.roles),
        account.version,
        account.update_time,
    )


async def update_password_hash(tx: Transaction, user_id: str, password_hash: str) -> None:
    """Write a new hash of the same password."""
    await tx.execute(sql.update_password_hash, user_id, password_hash)


async def insert_role_change(tx: Transaction, before: Account, after: Account, *, actor: str, traceparent: str) -> None:
    """Append to the record of role changes."""
    await tx.execute(sql.insert_role_change, after.id, actor, sorted(before.roles), sorted(after.roles), traceparent)


async def lock_throttle(tx: Transaction, email_digest: bytes) -> Throttle:
    """Return the count of attempts with an email address, locked until this transaction ends."""
    row = await tx.fetchrow(sql.lock_throttle, email_digest)
    assert row is not None, "it returns the row that it makes or meets"
    return Throttle(failures=row["failures"], retry_time=row["retry_time"])


async def update_throttle(tx: Transaction, email_digest: bytes, throttle: Throttle) -> None:
    """Write a count that was locked."""
    await tx.execute(sql.update_throttle, email_digest, throttle.failures, throttle.retry_time)


async def delete_throttle(tx: Transaction, email_digest: bytes) -> None:
    """Forget the attempts with an email address."""
    await tx.execute(sql.delete_throttle, email_digest)


async def insert_session(tx: Transaction, session: Session, token_digest: bytes) -> None:
    """Begin a session with its first token."""
    await tx.execute(sql.insert_session, session.id, session.user_id, session.create_time, session.expire_time)
    await tx.execute(sql.insert_token, token_digest, session.id)


async def lock_session_of_token(tx: Transaction, token_digest: bytes) -> Session | None:
    """Return the session that a refresh token belongs to, locked until this transaction ends."""
    row = await tx.fetchrow(sql.lock_session_of_token, token_digest)
    if row is None:
        return None
    return Session(
        id=row["session_id"],
        user_id=row["user_id"],
        create_time=row["create_time"],
        expire_time=row["expire_time"],
        ended=row["end_time"] is not None,
    )


async def read_token(tx: Transaction, token_digest: bytes) -> RefreshToken:
    """Return a refresh token of a session that was locked before."""
    row = await tx.fetchrow(sql.read_token, token_digest)
    assert row is not None, "its session was found by it"
    return RefreshToken(**row)


async def rotate_token(
    tx: Transaction, session: Session, token_digest: bytes, successor_digest: bytes, sealed_successor: bytes
) -> None:
    """Replace a session's live token, and write when the session expires now."""
    await tx.execute(sql.rotate_token, token_digest, successor_digest, sealed_successor)
    await tx.execute(sql.insert_token, successor_digest, session.id)
    await tx.execute(sql.extend_session, session.id, session.expire_time)


async def end_session(tx: Transaction, session_id: str, reason: End) -> None:
    """End a session, unless it has ended."""
    await tx.execute(sql.end_session, session_id, reason.name)


async def end_sessions(tx: Transaction, user_id: str, reason: End) -> None:
    """End all sessions of a user."""
    await tx.execute(sql.end_sessions, user_id, reason.name)


async def purge_expired(tx: Transaction) -> None:
    """Delete what has had its time: sealed successors, sessions, counts of attempts."""
    await tx.execute(sql.wipe_successors, GRACE)
    await tx.execute(sql.delete_sessions)
    await tx.execute(sql.delete_throttles)


async def lock_keys(tx: Transaction) -> list[SigningKey]:
    """Return all signing keys; until this transaction ends no other process can make or retire one."""
    await tx.execute(sql.lock_keys)
    return await list_keys(tx)


async def list_keys(tx: Transaction) -> list[SigningKey]:
    """Return all signing keys, the oldest first."""
    return [
        SigningKey(
            id=row["key_id"],
            public_key=row["public_key"],
            sealed_private_key=row["sealed_private_key"],
            use_time=row["use_time"],
        )
        for row in await tx.fetch(sql.list_keys)
    ]


async def insert_key(tx: Transaction, key: SigningKey) -> None:
    """Insert a signing key."""
    await tx.execute(sql.insert_key, key.id, key.public_key, key.sealed_private_key, key.use_time)


async def delete_keys(tx: Transaction, keys: Collection[SigningKey]) -> None:
    """Delete signing keys."""
    await tx.execute(sql.delete_keys, [key.id for key in keys])


async def read_book(tx: Transaction, user_id: str) -> AddressBook:
    """Return the address book of a user."""
    return AddressBook(tuple(map(_address_from_row, await tx.fetch(sql.list_addresses, user_id))))


async def update_book(tx: Transaction, user_id: str, before: AddressBook, after: AddressBook) -> None:
    """Write what differs between a book, read under the lock of its account, and the same book later."""
    known = {entry.id: entry for entry in before.entries}
    gone = known.keys() - {entry.id for entry in after.entries}
    if gone:
        await tx.execute(sql.delete_addresses, user_id, list(gone))
    changed = [entry for entry in after.entries if known.get(entry.id) != entry]
    # The old default steps down before the new one steps up: the database knows one at any time.
    for entry in sorted(changed, key=lambda entry: entry.is_default):
        await tx.execute(sql.update_address if entry.id in known else sql.insert_address, *_row(user_id, entry))


def _row(user_id: str, entry: SavedAddress) -> Sequence[object]:
    times = (entry.create_time, entry.update_time)
    return (entry.id, user_id, entry.label, *astuple(entry.place), entry.is_default, entry.version, *times)


def _address_from_row(row: Record) -> SavedAddress:
    return SavedAddress(
        id=row["address_id"],
        label=row["label"],
        place=Place(
            recipient=row["recipient"],
            phone=row["phone"],
            line1=row["line1"],
            line2=row["line2"],
            city=row["city"],
            region=row["region"],
            postal_code=row["postal_code"],
            country_code=row["country_code"],
        ),
        is_default=row["is_default"],
        version=row["version"],
        create_time=row["create_time"],
        update_time=row["update_time"],
    )


def _found(row: Record | None, user_id: str) -> Account:
    if row is None:
        raise UserNotFound(user_id=user_id)
    return _account_from_row(row)


def _account_from_row(row: Record) -> Account:
    return Account(
        id=row["user_id"],
        email=row["email"],
        password_hash=row["password_hash"],
        registration_id=row["registration_id"],
        display_name=row["display_name"],
        phone=row["phone"],
        roles=frozenset(row["roles"]),
        version=row["version"],
        create_time=row["create_time"],
        update_time=row["update_time"],
    )
