"""Reads and writes accounts as domain objects."""

from pathlib import Path

from chassis import Queries, Record, Transaction
from shop.user.v1.user_errors import UserNotFound
from svc_user.domain import ADMIN, Account

sql = Queries(Path(__file__).parent / "queries.sql")


async def insert_account(tx: Transaction, account: Account) -> bool:
    """Insert an account; return False when another account has the email address."""
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


async def find_account_of_session(tx: Transaction, user_id: str, session_id: str) -> Account | None:
    """Return the account of a session, None once the session has ended or expired."""
    row = await tx.fetchrow(sql.read_account_of_session, session_id, user_id)
    return _account_from_row(row) if row else None


async def read_account(tx: Transaction, user_id: str) -> Account:
    """Return an account; raises UserNotFound."""
    return _found(await tx.fetchrow(sql.read_account, user_id), user_id)


async def lock_account(tx: Transaction, user_id: str) -> Account:
    """Return an account, locked with its address book until this transaction ends; raises UserNotFound."""
    return _found(await tx.fetchrow(sql.lock_account, user_id), user_id)


async def lock_account_and_admins(tx: Transaction, user_id: str) -> tuple[Account, list[Account]]:
    """Return an account and all admins, locked until this transaction ends; raises UserNotFound."""
    rows = await tx.fetch(sql.lock_account_and_admins, user_id)
    account = _found(next((row for row in rows if row["user_id"] == user_id), None), user_id)
    return account, [one for one in map(_account_from_row, rows) if ADMIN in one.roles]


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
    """Write the hash of a password."""
    await tx.execute(sql.update_password_hash, user_id, password_hash)


async def insert_role_change(tx: Transaction, before: Account, after: Account, *, actor: str, traceparent: str) -> None:
    """Append to the log of role changes."""
    await tx.execute(sql.insert_role_change, after.id, actor, sorted(before.roles), sorted(after.roles), traceparent)


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
