"""The first admin: somebody has to give the others their roles."""

import uuid

from chassis import Database, outbox
from chassis.settings import SettingsError
from svc_user import domain, messages, store
from svc_user.domain import ADMIN, Account
from svc_user.passwords import Passwords

#: Stands where a change of roles has an actor, and a registration its request.
_ACTOR = "bootstrap"


async def ensure_admin(db: Database, passwords: Passwords, email: str, password: str) -> None:
    """Make the account an admin, and the account where there is none. However often, by however many replicas.

    Raises SettingsError when the account exists, is no admin, and has another password: whoever registered it first
    must not become admin by that.
    """
    if not 8 <= len(password.encode()) <= 256:
        raise SettingsError("ADMIN_PASSWORD must have 8 to 256 bytes")
    email = domain.normalised(email)
    password_hash = await passwords.hash(password)
    async with db.transaction() as tx:
        now = await store.read_now(tx)
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
            await outbox.add(tx, messages.registered(account))
            return
        known = await store.find_account(tx, email)
    assert known is not None, "accounts are never deleted"
    if ADMIN in known.roles:
        return
    if not await passwords.verify(password, known.password_hash):
        raise SettingsError("ADMIN_EMAIL belongs to an account with another password than ADMIN_PASSWORD")
    async with db.transaction() as tx:
        before = await store.lock_account(tx, known.id)
        after = before.with_roles(before.roles | {ADMIN}, admins=[], now=await store.read_now(tx))
        if after is not before:
            await store.update_account(tx, after)
            await store.insert_role_change(tx, before, after, actor=_ACTOR, traceparent="")
            await outbox.add(tx, messages.roles_changed(after))
