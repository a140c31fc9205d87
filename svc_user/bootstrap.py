"""The first admin, who gives the other users their roles."""

import uuid

from chassis import Database, current_time, outbox
from chassis.settings import SettingsError
from svc_user import converters, domain, store
from svc_user.domain import ADMIN, Account
from svc_user.passwords import Passwords

#: The actor of the role change, and the request_id of the registration.
_ACTOR = "bootstrap"


async def ensure_admin(db: Database, passwords: Passwords, email: str, password: str) -> None:
    """Create an admin with this email address, or make its account one; concurrent and repeated calls do no harm.

    Raises SettingsError when the account exists, is not an admin, and has another password: an account that a stranger
    registered first must not become an admin.
    """
    if not 8 <= len(password.encode()) <= 256:
        raise SettingsError("ADMIN_PASSWORD must have 8 to 256 bytes")
    email = domain.normalize_email(email)
    account = await _get_or_create(db, email, await passwords.hash(password))
    if ADMIN in account.roles:
        return
    if not await passwords.verify(password, account.password_hash):
        raise SettingsError("ADMIN_EMAIL belongs to an account with another password than ADMIN_PASSWORD")
    await _make_admin(db, account.id)


async def _get_or_create(db: Database, email: str, password_hash: str) -> Account:
    async with db.transaction() as tx:
        now = await current_time(tx)
        account = Account(
            id=uuid.uuid4().hex,
            email=email,
            password_hash=password_hash,
            registration_id=_ACTOR,
            roles=frozenset({domain.CUSTOMER, ADMIN}),
            create_time=now,
            update_time=now,
        )
        if await store.insert_account(tx, account):
            await outbox.add(tx, converters.user_registered_event(account))
            return account
        existing = await store.find_account(tx, email)
    assert existing is not None, "accounts are never deleted"
    return existing


async def _make_admin(db: Database, user_id: str) -> None:
    async with db.transaction() as tx:
        before = await store.lock_account(tx, user_id)
        after = before.with_roles(before.roles | {ADMIN}, admins=[], now=await current_time(tx))
        if after is not before:
            await store.update_account(tx, after)
            await store.insert_role_change(tx, before, after, actor=_ACTOR, traceparent="")
            await outbox.add(tx, converters.user_roles_changed_event(after))
