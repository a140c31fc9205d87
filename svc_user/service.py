"""The RPCs of accounts."""

import uuid

from chassis import Context, Database, Transaction, current_call, current_time, current_user, outbox, transactional
from chassis.types.field_masks import updated_fields
from shop.user.v1 import user_service_pb2 as pb
from shop.user.v1.user_errors import EmailTaken
from shop.user.v1.user_service_pb2_grpc import UserServiceServicer
from svc_user import converters, domain, store, store_sessions
from svc_user.current_account import current_account, requires_session
from svc_user.domain import Account
from svc_user.domain_passwords import check_password
from svc_user.domain_sessions import SessionEndReason
from svc_user.passwords import Passwords


class UserService(UserServiceServicer):
    """Registers users, and manages their profiles and roles."""

    def __init__(self, db: Database, passwords: Passwords) -> None:
        """Keep accounts in `db`, with passwords hashed by `passwords`."""
        self.db = db
        self.passwords = passwords

    async def Register(self, request: pb.RegisterRequest, context: Context) -> pb.User:
        # Not `transactional`, which would store a fast hash of the password. The email address is the idempotency key.
        email = domain.normalize_email(request.email)
        check_password(request.password, email)
        password_hash = await self.passwords.hash(request.password)
        account, created = await self._get_or_create(request, email, password_hash)
        if not created and account.registration_id != request.request_id:
            raise EmailTaken
        if not created and not await self.passwords.verify(request.password, account.password_hash):
            raise EmailTaken
        return converters.account_to_proto(account)

    async def GetMe(self, request: pb.GetMeRequest, context: Context) -> pb.User:
        async with self.db.connection() as tx:
            return converters.account_to_proto(await current_account(tx))

    @requires_session
    @transactional
    async def UpdateMe(self, request: pb.UpdateMeRequest, tx: Transaction) -> pb.User:
        user, fields = request.user, updated_fields(request.user, request.update_mask)
        before = await store.lock_account(tx, current_user().id)
        after = before.edited(
            etag=user.etag,
            now=await current_time(tx),
            display_name=user.display_name if "display_name" in fields else None,
            phone=user.phone if "phone" in fields else None,
        )
        if after is not before:
            await store.update_account(tx, after)
            await outbox.add(tx, converters.user_updated_event(before, after))
        return converters.account_to_proto(after)

    async def GetUser(self, request: pb.GetUserRequest, context: Context) -> pb.User:
        async with self.db.connection() as tx:
            await current_account(tx)
            return converters.account_to_proto(await store.read_account(tx, request.user_id))

    @requires_session
    @transactional
    async def SetUserRoles(self, request: pb.SetUserRolesRequest, tx: Transaction) -> pb.User:
        call = current_call()
        assert call is not None, "a handler runs in a call"
        before, admins = await store.lock_account_and_admins(tx, request.user_id)
        admin_ids = [admin.id for admin in admins]
        after = before.with_roles(request.roles, admins=admin_ids, now=await current_time(tx))
        if after is not before:
            await store.update_account(tx, after)
            await store.insert_role_change(tx, before, after, actor=current_user().id, traceparent=call.traceparent)
            await outbox.add(tx, converters.user_roles_changed_event(after))
        if before.roles - after.roles:
            await store_sessions.end_sessions(tx, after.id, SessionEndReason.ROLE_LOST)
        return converters.account_to_proto(after)

    async def _get_or_create(self, request: pb.RegisterRequest, email: str, password_hash: str) -> tuple[Account, bool]:
        """Return the account of the email address, and whether this call created it."""
        async with self.db.transaction() as tx:
            now = await current_time(tx)
            account = Account(
                id=uuid.uuid4().hex,
                email=email,
                password_hash=password_hash,
                registration_id=request.request_id,
                display_name=request.display_name,
                create_time=now,
                update_time=now,
            )
            if await store.insert_account(tx, account):
                await outbox.add(tx, converters.user_registered_event(account))
                return account, True
            existing = await store.find_account(tx, email)
        assert existing is not None, "accounts are never deleted"
        return existing, False
