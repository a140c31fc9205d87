"""A stranger who guesses passwords does not lock the owner out."""

import grpc
import pytest

from chassis.testing import serving
from shop.user.v1 import auth_service_pb2 as pb
from shop.user.v1.auth_service_pb2_grpc import AuthServiceStub
from svc_user.__main__ import compose
from svc_user.domain_logins import FREE_ATTEMPTS, FREE_ATTEMPTS_BY_EMAIL
from tests.integration.svc_user.people import PASSWORD, an_email, register

OWNER, STRANGER = "192.0.2.1", "198.51.100.1"


@pytest.fixture
async def login(settings, issuer):
    """Logs in from an address; returns the tokens, or the code of the error and its reason in the details."""
    async with serving("svc_user", settings, compose, issuer) as app, grpc.aio.insecure_channel(app.address) as channel:
        stub = AuthServiceStub(channel)

        async def login(email, address, password=PASSWORD, device_token=""):
            request = pb.LoginRequest(email=email, password=password, device_token=device_token)
            metadata = (("x-shop-caller", "edge"), ("x-forwarded-for", address))
            try:
                return await stub.Login(request, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                return error.code().name

        yield login


async def hammer(login, email, address):
    """Guess until throttled."""
    for _ in range(FREE_ATTEMPTS + 6):
        if await login(email, address, "a wrong guess") == "RESOURCE_EXHAUSTED":
            return
    raise AssertionError("never throttled")


async def pause_everything(rows):
    await rows("UPDATE login_throttle SET retry_time = now() + interval '1 hour'")


async def test_the_owner_logs_in_while_a_stranger_guesses_from_another_address(login, users, rows):
    email = an_email()
    await register(users, email)
    await hammer(login, email, STRANGER)
    assert (await login(email, OWNER)).access_token
    await hammer(login, email, STRANGER)
    await pause_everything(rows)
    assert (await login(email, OWNER)).access_token, "an address that logged in before is not held up by others"


async def test_a_known_device_logs_in_while_a_stranger_guesses_from_the_same_address(login, users, rows):
    email = an_email()
    await register(users, email)
    device_token = (await login(email, OWNER)).device_token
    await hammer(login, email, OWNER)
    await pause_everything(rows)
    assert await login(email, OWNER) == "RESOURCE_EXHAUSTED"
    again = await login(email, OWNER, device_token=device_token)
    assert again.device_token == device_token


async def test_a_device_of_another_account_is_unknown(login, users, rows):
    email, other = an_email(), an_email()
    await register(users, email)
    await register(users, other)
    device_token = (await login(other, OWNER)).device_token
    await hammer(login, email, OWNER)
    await pause_everything(rows)
    assert await login(email, OWNER, device_token=device_token) == "RESOURCE_EXHAUSTED"


async def test_many_addresses_are_throttled_together(login, users, rows):
    email = an_email()
    await register(users, email)
    await login(email, STRANGER, "a wrong guess")
    await rows("UPDATE login_throttle SET failures = $1", FREE_ATTEMPTS_BY_EMAIL)
    await rows("DELETE FROM login_throttle WHERE email_digest <> sha256($1::text::bytea)", email)
    await login(email, "198.51.100.2", "a wrong guess")
    assert await login(email, "198.51.100.3", "a wrong guess") == "RESOURCE_EXHAUSTED"
