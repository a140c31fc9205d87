"""The RPCs of accounts."""

import uuid

from chassis import Context, Database, Transaction, current_call, idempotent, outbox
from chassis.types.field_masks import updated_fields
from shop.user.v1 import user_service_pb2 as pb
from shop.user.v1.user_errors import EmailTaken
from shop.user.v1.user_service_pb2_grpc import UserServiceServicer
from svc_user import domain, messages, store
from svc_user.domain import Account, End
from svc_user.passwords import Passwords
from svc_user.signed_in import signed_in


class UserService(UserServiceServicer):
    """Registers users, and manages their profiles and roles."""

    def __init__(self, db: Database, passwords: Passwords) -> None:
        """Keep accounts in `db`, their passwords hashed by `passwords`."""
        self.db = db
        self.passwords = passwords

    async def Register(self, request: pb.RegisterRequest, context: Context) -> pb.User:
        # Without `idempotent`: its record would keep a fast hash of the password. The email address is the key instead.
        email = domain.normalised(request.email)
        password_hash = await self.passwords.hash(request.password)
        async with self.db.transaction() as tx:
            now = await store.read_now(tx)
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
                await outbox.add(tx, messages.registered(account))
                return messages.account_to_proto(account)
            known = await store.find_account(tx, email)
        assert known is not None, "accounts are never deleted"
        if known.registration_id != request.request_id:
            raise EmailTaken
        if not await self.passwords.verify(request.password, known.password_hash):
            raise EmailTaken
        return messages.account_to_proto(known)

    async def GetMe(self, request: pb.GetMeRequest, context: Context) -> pb.User:
        async with self.db.connection() as tx:
            return messages.account_to_proto(await signed_in(tx))

    async def UpdateMe(self, request: pb.UpdateMeRequest, context: Context) -> pb.User:
        async with self.db.connection() as connection:
            me = await signed_in(connection)
        asked, fields = request.user, updated_fields(request.user, request.update_mask)
        display_name = asked.display_name if "display_name" in fields else None
        phone = asked.phone if "phone" in fields else None

        async def change(tx: Transaction) -> pb.User:
            before = await store.lock_account(tx, me.id)
            now = await store.read_now(tx)
            after = before.edited(etag=asked.etag, now=now, display_name=display_name, phone=phone)
            if after is not before:
                await store.update_account(tx, after)
                await outbox.add(tx, messages.updated(before, after))
            return messages.account_to_proto(after)

        return await idempotent(self.db, request, pb.User, change)

    async def GetUser(self, request: pb.GetUserRequest, context: Context) -> pb.User:
        async with self.db.connection() as tx:
            await signed_in(tx)
            return messages.account_to_proto(await store.read_account(tx, request.user_id))

    async def SetUserRoles(self, request: pb.SetUserRolesRequest, context: Context) -> pb.User:
        call = current_call()
        assert call is not None
        async with self.db.connection() as connection:
            actor = await signed_in(connection)

        async def change(tx: Transaction) -> pb.User:
            before, admins = await store.lock_account_and_admins(tx, request.user_id)
            after = before.with_roles(
                request.roles, admins=[admin.id for admin in admins], now=await store.read_now(tx)
            )
            if after is not before:
                await store.update_account(tx, after)
                await store.insert_role_change(tx, before, after, actor=actor.id, traceparent=call.traceparent)
                await outbox.add(tx, messages.roles_changed(after))
            if before.roles - after.roles:
                await store.end_sessions(tx, after.id, End.ROLE_LOST)
            return messages.account_to_proto(after)

        return await idempotent(self.db, request, pb.User, change)
