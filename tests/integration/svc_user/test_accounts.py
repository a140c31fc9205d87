"""Accounts, roles and the first admin."""

import asyncio

import asyncpg
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from chassis.settings import SettingsError
from shop.chassis.v1.chassis_errors import (
    IdempotencyKeyReused,
    InvalidRequest,
    RoleMissing,
    TokenInvalid,
    TokenMissing,
)
from shop.user.v1 import auth_service_pb2 as auth_pb
from shop.user.v1 import user_service_pb2 as pb
from shop.user.v1.user_errors import LastAdmin, RefreshTokenInvalid, UserNotFound, VersionMismatch
from shop.user.v1.user_events_pb2 import UserRolesChanged, UserUpdated
from tests.integration.svc_user.people import ADMIN, PASSWORD, a_request_id, an_email, bearing, login, refresh, register


def update(*paths, request_id=None, **fields):
    return pb.UpdateMeRequest(
        user=pb.User(**fields), update_mask=FieldMask(paths=paths), request_id=request_id or a_request_id()
    )


def set_roles(user_id, *roles, request_id=None):
    return pb.SetUserRolesRequest(user_id=user_id, roles=roles, request_id=request_id or a_request_id())


async def make_admin(users, admin, email):
    user = await register(users, email)
    with bearing(admin):
        await users.accounts.SetUserRoles(set_roles(user.user_id, "customer", "admin"))
    return user


async def events(rows, kind, user_id):
    found = await rows(
        "SELECT payload FROM outbox WHERE type = $1 AND key = $2 ORDER BY id", kind.DESCRIPTOR.full_name, user_id
    )
    return [kind.FromString(row["payload"]) for row in found]


async def test_an_update_with_a_mask_replaces_the_named_fields(users, ann):
    with bearing(ann[1]):
        await users.accounts.UpdateMe(update("phone", phone="+66 1", display_name="ignored"))
        me = await users.accounts.UpdateMe(
            update("display_name", display_name="Bea", phone="ignored, unlike a mask"[:0])
        )
        assert (me.display_name, me.phone, me.etag) == ("Bea", "+66 1", "3")
        assert (await users.accounts.UpdateMe(update("phone"))).phone == ""


async def test_an_update_without_a_mask_replaces_the_set_fields_that_users_may_change(users, ann):
    with bearing(ann[1]):
        me = await users.accounts.GetMe(pb.GetMeRequest())
        me.phone = "+66 1"
        me.roles.append("admin")
        me.email = "other@example.com"
        after = await users.accounts.UpdateMe(pb.UpdateMeRequest(user=me, request_id=a_request_id()))
    assert (after.phone, after.display_name, list(after.roles), after.email) == ("+66 1", "Ann", ["customer"], ann[0])


@pytest.mark.parametrize("path", ["roles", "email", "user_id", "password_hash", "version", "*"])
async def test_a_mask_with_a_field_that_users_may_not_change_is_rejected(users, ann, path):
    with bearing(ann[1]), pytest.raises(InvalidRequest):
        await users.accounts.UpdateMe(update(path, display_name="Bea"))


async def test_an_update_with_a_stale_etag_is_rejected_and_writes_nothing(users, ann):
    with bearing(ann[1]):
        await users.accounts.UpdateMe(update("phone", phone="+66 1", etag="1"))
        with pytest.raises(VersionMismatch):
            await users.accounts.UpdateMe(update("phone", phone="+66 2", etag="1"))
        assert (await users.accounts.GetMe(pb.GetMeRequest())).phone == "+66 1"


async def test_of_concurrent_updates_with_one_etag_one_succeeds(users, ann):
    async def attempt(phone):
        try:
            return await users.accounts.UpdateMe(update("phone", phone=phone, etag="1"))
        except VersionMismatch:
            return None

    with bearing(ann[1]):
        done = await asyncio.gather(*(attempt(f"+66 {number}") for number in range(8)))
    assert len([user for user in done if user]) == 1


async def test_an_update_with_a_repeated_request_id_returns_the_first_reply(users, ann, rows):
    with bearing(ann[1]):
        first = await users.accounts.UpdateMe(update("phone", phone="+66 1", request_id="k-1"))
        await users.accounts.UpdateMe(update("phone", phone="+66 2"))
        assert await users.accounts.UpdateMe(update("phone", phone="+66 1", request_id="k-1")) == first
        assert (await users.accounts.GetMe(pb.GetMeRequest())).phone == "+66 2"
        with pytest.raises(IdempotencyKeyReused):
            await users.accounts.UpdateMe(update("phone", phone="+66 3", request_id="k-1"))


async def test_the_event_of_an_update_names_the_fields_without_their_values(users, ann, rows):
    with bearing(ann[1]):
        me = await users.accounts.UpdateMe(update("phone", "display_name", phone="+66 1", display_name="Ann"))
        await users.accounts.UpdateMe(update("phone", phone="+66 1"))
    assert await events(rows, UserUpdated, me.user_id) == [
        UserUpdated(user_id=me.user_id, version=2, changed_fields=["phone"])
    ]


async def test_an_account_is_neither_read_nor_updated_after_the_end_of_the_session(users, ann, rows):
    with bearing(ann[1]):
        await users.auth.Logout(auth_pb.LogoutRequest())
        with pytest.raises(TokenInvalid):
            await users.accounts.GetMe(pb.GetMeRequest())
        with pytest.raises(TokenInvalid):
            await users.accounts.UpdateMe(update("phone", phone="+66 1"))
    (row,) = await rows("SELECT phone FROM account WHERE email = $1", ann[0])
    assert row["phone"] == ""


async def test_admins_read_other_users_and_customers_do_not(users, ann, admin):
    with bearing(ann[1]):
        me = await users.accounts.GetMe(pb.GetMeRequest())
        with pytest.raises(RoleMissing):
            await users.accounts.GetUser(pb.GetUserRequest(user_id=me.user_id))
    with bearing(admin):
        assert await users.accounts.GetUser(pb.GetUserRequest(user_id=me.user_id)) == me
        with pytest.raises(UserNotFound):
            await users.accounts.GetUser(pb.GetUserRequest(user_id="nobody"))


async def test_the_next_refresh_grants_new_roles(users, ann, admin, rows):
    with bearing(ann[1]):
        me = await users.accounts.GetMe(pb.GetMeRequest())
    with bearing(admin):
        staff = await users.accounts.SetUserRoles(set_roles(me.user_id, "staff", "customer"))
    assert (list(staff.roles), staff.etag) == (["customer", "staff"], "2")
    with bearing(await refresh(users, ann[1])):
        assert (await users.accounts.GetUser(pb.GetUserRequest(user_id=me.user_id))).user_id == me.user_id
    assert await events(rows, UserRolesChanged, me.user_id) == [
        UserRolesChanged(user_id=me.user_id, version=2, roles=["customer", "staff"])
    ]


async def test_the_loss_of_a_role_ends_all_sessions(users, admin, rows):
    email = an_email()
    user = await make_admin(users, admin, email)
    tokens, elsewhere = await login(users, email), await login(users, email)
    with bearing(admin):
        await users.accounts.SetUserRoles(set_roles(user.user_id, "customer"))
    with bearing(tokens):
        with pytest.raises(TokenInvalid):
            await users.accounts.SetUserRoles(set_roles(user.user_id, "admin"))
        with pytest.raises(TokenInvalid):
            await users.accounts.GetUser(pb.GetUserRequest(user_id=user.user_id))
    for session in (tokens, elsewhere):
        with pytest.raises(RefreshTokenInvalid):
            await refresh(users, session)
    with bearing(await login(users, email)), pytest.raises(RoleMissing):
        await users.accounts.GetUser(pb.GetUserRequest(user_id=user.user_id))


async def test_a_token_with_a_role_that_its_user_has_lost_is_rejected_in_a_live_session(users, admin, rows):
    """The roles in the database count, even in a session that has not ended."""
    email = an_email()
    user = await make_admin(users, admin, email)
    tokens = await login(users, email)
    await rows("UPDATE account SET roles = '{customer}' WHERE user_id = $1", user.user_id)
    with bearing(tokens), pytest.raises(RoleMissing):
        await users.accounts.SetUserRoles(set_roles(user.user_id, "admin"))


async def test_every_change_of_roles_is_logged_append_only(users, ann, admin, rows):
    with bearing(admin):
        root = await users.accounts.GetMe(pb.GetMeRequest())
        user = await make_admin(users, admin, an_email())
        await users.accounts.SetUserRoles(set_roles(user.user_id, "customer", "admin"))
    (change,) = await rows("SELECT * FROM role_change")
    assert (change["user_id"], change["actor"]) == (user.user_id, root.user_id)
    assert (change["roles_before"], change["roles_after"]) == (["customer"], ["admin", "customer"])
    for tampering in ("UPDATE role_change SET actor = 'x'", "DELETE FROM role_change", "TRUNCATE role_change"):
        with pytest.raises(asyncpg.RaiseError, match="append-only"):
            await rows(tampering)


async def test_the_last_admin_keeps_the_role(users, admin):
    with bearing(admin):
        root = await users.accounts.GetMe(pb.GetMeRequest())
        with pytest.raises(LastAdmin):
            await users.accounts.SetUserRoles(set_roles(root.user_id, "customer"))


async def test_of_two_admins_who_demote_each_other_at_the_same_time_one_remains(users, admin, rows):
    email = an_email()
    user = await make_admin(users, admin, email)
    other = await login(users, email)
    with bearing(admin):
        root = await users.accounts.GetMe(pb.GetMeRequest())

    async def demote(tokens, user_id):
        with bearing(tokens):
            try:
                await users.accounts.SetUserRoles(set_roles(user_id, "customer"))
            except (LastAdmin, TokenInvalid):
                return False
        return True

    done = await asyncio.gather(demote(admin, user.user_id), demote(other, root.user_id))
    assert sorted(done) == [False, True]
    assert len(await rows("SELECT 1 FROM account WHERE 'admin' = ANY (roles)")) == 1


async def test_setting_roles_of_an_unknown_user_fails(users, admin):
    with bearing(admin), pytest.raises(UserNotFound):
        await users.accounts.SetUserRoles(set_roles("nobody", "staff"))


async def test_callers_without_a_token_or_the_role_are_rejected(users, ann, replica, settings):
    with pytest.raises(TokenMissing):
        await users.accounts.GetMe(pb.GetMeRequest())
    with bearing(ann[1]), pytest.raises(RoleMissing):
        await users.accounts.SetUserRoles(set_roles("somebody", "admin"))


async def test_the_first_admin_is_created_once_over_several_starts(replica, rows):
    async def start():
        async with replica() as users, replica():
            with bearing(await login(users, *ADMIN)):
                return await users.accounts.GetMe(pb.GetMeRequest())

    first, second = await start(), await start()
    assert first == second
    assert list(first.roles) == ["admin", "customer"]
    assert len(await rows("SELECT 1 FROM outbox")) == 1


async def test_an_existing_account_becomes_the_first_admin_by_its_password_alone(replica, rows):
    async with replica(admin_email="") as users:
        await register(users, ADMIN[0], PASSWORD)
    with pytest.raises(SettingsError, match="ADMIN_EMAIL"):
        async with replica():
            pass
    assert not await rows("SELECT 1 FROM account WHERE 'admin' = ANY (roles)")
    async with replica(admin_password=PASSWORD) as users:
        with bearing(await login(users, ADMIN[0], PASSWORD)):
            assert "admin" in (await users.accounts.GetMe(pb.GetMeRequest())).roles
    (change,) = await rows("SELECT actor FROM role_change")
    assert change["actor"] == "bootstrap"


async def test_the_first_admin_needs_a_password(replica):
    with pytest.raises(SettingsError, match="ADMIN_PASSWORD"):
        async with replica(admin_password=""):
            pass
