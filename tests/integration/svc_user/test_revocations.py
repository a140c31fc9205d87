"""Ended sessions are streamed to every service, which then rejects their access tokens."""

import asyncio

import pytest

from chassis.app import App
from chassis.settings import Settings as ChassisSettings
from chassis.testing import client_for, eventually, serving
from shop.chassis.v1.chassis_errors import TokenInvalid
from shop.user.v1 import auth_service_pb2 as auth_pb
from shop.user.v1 import user_service_pb2 as pb
from shop.user.v1.auth_service_pb2_grpc import AuthServiceStub
from shop.user.v1.user_service_pb2_grpc import UserServiceServicer, UserServiceStub
from svc_user.__main__ import compose
from tests.integration.svc_user.people import PASSWORD, an_email, bearing, login, refresh, register


class OtherService(UserServiceServicer):
    """A service that only checks tokens."""

    async def GetMe(self, *_):  # noqa: N802  gRPC's
        return pb.User()


@pytest.fixture
async def address(settings, issuer):
    """The address of svc_user."""
    async with serving("svc_user", settings, compose, issuer) as app:
        yield app.address


@pytest.fixture
async def other(address):
    """A stub of another service, which fetches keys and revocations from svc_user as all services do."""
    app = App("svc_other", ChassisSettings(upstreams=f"*={address}", drain_seconds=0.2))
    app.serve(OtherService())
    async with app.serving(), client_for(app.address, UserServiceStub) as stub:
        yield stub


async def is_rejected(other, tokens):
    with bearing(tokens):
        try:
            await other.GetMe(pb.GetMeRequest())
        except TokenInvalid:
            return True
    return False


async def test_another_service_rejects_the_token_within_a_second_of_the_logout(users, ann, other):
    email, tokens = ann
    again = await login(users, email)
    assert not await is_rejected(other, tokens)
    with bearing(tokens):
        await users.auth.Logout(auth_pb.LogoutRequest())
    await eventually(lambda: is_rejected(other, tokens), seconds=1)
    assert not await is_rejected(other, again)


async def test_another_service_rejects_the_token_within_a_second_of_a_lost_role(users, ann, admin, other):
    email, _ = ann
    with bearing(admin):
        ann_id = (await users.accounts.GetUser(pb.GetUserRequest(user_id=await id_of(users, email)))).user_id
        await set_roles(users, ann_id, "staff")
    staff = await login(users, email)
    assert not await is_rejected(other, staff)
    with bearing(admin):
        await set_roles(users, ann_id, "customer")
    await eventually(lambda: is_rejected(other, staff), seconds=1)


async def id_of(users, email):
    with bearing(await login(users, email)):
        return (await users.accounts.GetMe(pb.GetMeRequest())).user_id


async def set_roles(users, user_id, *roles):
    request = pb.SetUserRolesRequest(user_id=user_id, roles=roles, request_id=an_email().partition("@")[0])
    await users.accounts.SetUserRoles(request)


async def test_a_stream_begins_with_the_sessions_that_ended_before(users, ann, address):
    _, tokens = ann
    with bearing(tokens):
        await users.auth.Logout(auth_pb.LogoutRequest())
    async with client_for(address, AuthServiceStub, caller="svc_order") as auth:
        first = await anext(auth.WatchRevocations(auth_pb.WatchRevocationsRequest()))
    assert len(first.revocations) == 1


async def test_a_session_is_streamed_once_and_only_while_its_tokens_are_valid(users, ann, address, rows):
    email, tokens = ann
    with bearing(tokens):
        await users.auth.Logout(auth_pb.LogoutRequest())
    await rows("UPDATE session SET end_time = end_time - interval '17 minutes' WHERE end_time IS NOT NULL")
    async with client_for(address, AuthServiceStub, caller="svc_order") as auth:
        stream = auth.WatchRevocations(auth_pb.WatchRevocationsRequest())
        assert not (await anext(stream)).revocations
        for _ in range(2):
            with bearing(await login(users, email)):
                await users.auth.Logout(auth_pb.LogoutRequest())
            async with asyncio.timeout(1):
                while not (message := await anext(stream)).revocations:
                    pass  # a sign of life
            assert len(message.revocations) == 1


async def test_the_reuse_of_a_refresh_token_revokes_its_session(users, other, rows):
    email = an_email()
    await register(users, email)
    first = await login(users, email)
    second = await refresh(users, first)
    assert not await is_rejected(other, second)
    await rows("UPDATE refresh_token SET rotate_time = rotate_time - interval '1 minute' WHERE rotate_time IS NOT NULL")
    with pytest.raises(Exception, match="used before"):
        await refresh(users, first)
    await eventually(lambda: is_rejected(other, second), seconds=1)


async def test_a_changed_password_revokes_the_users_other_sessions_and_all_of_them_end_with_all_sessions(
    users, ann, other
):
    email, tokens = ann
    second = await login(users, email)
    request = auth_pb.ChangePasswordRequest(current_password=PASSWORD, new_password="another horse battery")
    with bearing(tokens):
        await users.auth.ChangePassword(request)
    await eventually(lambda: is_rejected(other, second), seconds=1)
    assert not await is_rejected(other, tokens)
    with bearing(tokens):
        await users.auth.Logout(auth_pb.LogoutRequest(all_sessions=True))
    await eventually(lambda: is_rejected(other, tokens), seconds=1)
