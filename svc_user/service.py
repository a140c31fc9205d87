"""The accounts' RPCs; sign-in and address books are in service_sessions and service_addresses."""

from chassis import Context, Database, Transaction, current_call, idempotent, outbox
from chassis.types.field_masks import updated_fields
from shop.user.v1 import user_service_pb2 as pb
from svc_user import messages, store
from svc_user.domain import End, SessionLimits
from svc_user.keyring import Keyring
from svc_user.passwords import Passwords
from svc_user.service_addresses import AddressRpcs
from svc_user.service_sessions import SessionRpcs
from svc_user.signed_in import signed_in


class UserService(SessionRpcs, AddressRpcs):
    """Knows who customers and staff are."""

    def __init__(self, db: Database, passwords: Passwords, keyring: Keyring, limits: SessionLimits) -> None:
        """Sign access tokens with `keyring`; sessions last as `limits` say."""
        SessionRpcs.__init__(self, db, passwords, keyring, limits)
        AddressRpcs.__init__(self, db)

    async def GetJwks(self, request: pb.GetJwksRequest, context: Context) -> pb.JsonWebKeySet:
        return pb.JsonWebKeySet(keys=[pb.JsonWebKey(**key) for key in self.keyring.public_keys()])

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
