import base64
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import asyncpg
import pytest

from chassis.testing import client_for, serving
from shop.user.v1.address_service_pb2_grpc import AddressServiceStub
from shop.user.v1.auth_service_pb2_grpc import AuthServiceStub
from shop.user.v1.user_service_pb2_grpc import UserServiceStub
from svc_user.__main__ import compose
from svc_user.settings import Settings
from tests.integration.svc_user.people import ADMIN, an_email, login, register


@dataclass(frozen=True)
class UserClients:
    """The stubs of the three gRPC services."""

    accounts: UserServiceStub
    auth: AuthServiceStub
    addresses: AddressServiceStub


@pytest.fixture
async def database(fresh_database):
    async with fresh_database("svc_user") as url:
        yield url


@pytest.fixture
def settings(database, redis_url, event_prefix):
    return Settings(
        database_url=database,
        redis_url=redis_url,
        event_prefix=event_prefix,
        signing_key_secret=base64.b64encode(bytes(range(32))).decode(),
        admin_email=ADMIN[0],
        admin_password=ADMIN[1],
    )


@pytest.fixture
def replica(settings, issuer):
    """Serves another process of the service, with changed settings: `async with replica(...) as users`."""

    @asynccontextmanager
    async def replica(**changes):
        async with (
            serving("svc_user", replace(settings, **changes), compose, issuer) as app,
            client_for(app.address, UserServiceStub) as accounts,
            client_for(app.address, AuthServiceStub) as auth,
            client_for(app.address, AddressServiceStub) as addresses,
        ):
            yield UserClients(accounts, auth, addresses)

    return replica


@pytest.fixture
async def users(replica):
    """Calls the service as the edge does."""
    async with replica() as clients:
        yield clients


@pytest.fixture
async def rows(database):
    """Executes a statement on the service's database as its owner: `await rows("SELECT ...", 1)`."""
    connection = await asyncpg.connect(database)
    yield connection.fetch
    await connection.close()


@pytest.fixture
async def ann(users):
    """A customer who has logged in: the email address and tokens."""
    email = an_email()
    await register(users, email, display_name="Ann")
    return email, await login(users, email)


@pytest.fixture
async def admin(users):
    """The tokens of the first admin."""
    return await login(users, *ADMIN)
