"""New passwords: their rules, and the change of one."""

import asyncio

import pytest

from shop.chassis.v1.chassis_errors import TokenInvalid
from shop.user.v1 import auth_service_pb2 as pb
from shop.user.v1 import user_service_pb2 as user_pb
from shop.user.v1.user_errors import BadCredentials, PasswordRejected, RefreshTokenInvalid
from tests.integration.database_control import connected, until_blocked
from tests.integration.svc_user.people import PASSWORD, an_email, bearing, login, refresh, register

NEW = "another horse battery"


async def change(users, tokens, current=PASSWORD, new=NEW):
    with bearing(tokens):
        await users.auth.ChangePassword(pb.ChangePasswordRequest(current_password=current, new_password=new))


async def test_an_account_with_a_common_password_is_not_registered(users, rows):
    for password in ("password1", "\u200b" * 8, "ann@example.com"):
        with pytest.raises(PasswordRejected):
            await register(users, "ann@example.com", password)
    assert not await rows("SELECT 1 FROM account WHERE email = 'ann@example.com'")


async def test_a_changed_password_ends_all_other_sessions(users, ann):
    email, tokens = ann
    other = await login(users, email)
    await change(users, tokens)
    with bearing(other), pytest.raises(TokenInvalid):
        await users.accounts.GetMe(user_pb.GetMeRequest())
    with pytest.raises(RefreshTokenInvalid):
        await refresh(users, other)
    await refresh(users, tokens)
    with pytest.raises(BadCredentials):
        await login(users, email)
    await login(users, email, NEW)


async def test_without_the_present_password_it_is_not_changed(users, ann):
    email, tokens = ann
    with pytest.raises(BadCredentials):
        await change(users, tokens, current="a wrong guess")
    with pytest.raises(PasswordRejected):
        await change(users, tokens, new="password1")
    await login(users, email)


async def test_of_two_changes_at_the_same_time_one_is_rejected(users, ann, database):
    """Each has verified the password that the other replaces."""
    email, tokens = ann
    async with connected(database) as connection, connection.transaction():
        await connection.execute("SELECT FROM account WHERE email = $1 FOR UPDATE", email)
        changes = [asyncio.create_task(change(users, tokens, new=f"{NEW} {number}")) for number in range(2)]
        await until_blocked(connection, 2)
    outcomes = await asyncio.gather(*changes, return_exceptions=True)
    assert sorted(type(one).__name__ for one in outcomes) == ["BadCredentials", "NoneType"]


async def test_after_the_end_of_the_session_it_is_not_changed(users, ann):
    email, tokens = ann
    with bearing(tokens):
        await users.auth.Logout(pb.LogoutRequest())
    with pytest.raises(TokenInvalid):
        await change(users, tokens)
    await login(users, email)


async def test_a_password_is_in_no_log(users, caplog):
    email = an_email()
    with caplog.at_level("DEBUG"):
        await register(users, email, NEW)
        await change(users, await login(users, email, NEW), current=NEW, new=PASSWORD)
    assert NEW not in caplog.text
    assert PASSWORD not in caplog.text
