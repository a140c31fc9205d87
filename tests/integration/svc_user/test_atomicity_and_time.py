"""Role changes commit with their events, and sessions depend on the clock of the database."""

from datetime import timedelta

import pytest

from chassis import OutcomeUnknown
from shop.user.v1 import user_service_pb2 as pb
from shop.user.v1.user_errors import TokenReused
from tests.integration.database_control import advance_clock, connected, fail_commits, install_clock
from tests.integration.svc_user.people import a_request_id, an_email, bearing, login, refresh, register


@pytest.fixture
async def clock(database):
    """Moves the clock of the database, which the service connects to afterwards: `await clock(timedelta(hours=1))`."""
    async with connected(database) as connection:
        await install_clock(connection)
        yield lambda by: advance_clock(connection, by)


@pytest.fixture(params=["account", "role_change", "outbox"])
def uncommittable(request, database):
    """Makes transactions that write this table fail from now on: `await uncommittable()`."""

    async def uncommittable():
        async with connected(database) as connection:
            await fail_commits(connection, request.param)

    return uncommittable


async def test_roles_their_log_and_their_event_are_committed_together_or_not_at_all(
    users, ann, admin, rows, uncommittable
):
    with bearing(ann[1]):
        me = await users.accounts.GetMe(pb.GetMeRequest())
    written = await rows("SELECT count(*) FROM outbox")
    await uncommittable()
    with bearing(admin), pytest.raises(OutcomeUnknown):
        await users.accounts.SetUserRoles(
            pb.SetUserRolesRequest(user_id=me.user_id, roles=["customer", "staff"], request_id=a_request_id())
        )
    assert await rows("SELECT count(*) FROM outbox") == written
    (account,) = await rows("SELECT roles FROM account WHERE user_id = $1", me.user_id)
    assert account["roles"] == ["customer"]
    assert not await rows("SELECT 1 FROM role_change WHERE user_id = $1", me.user_id)


async def test_the_grace_period_is_measured_by_the_clock_of_the_database(clock, users):
    email = an_email()
    await register(users, email)
    first = await login(users, email)
    await refresh(users, first)
    await clock(timedelta(seconds=11))
    with pytest.raises(TokenReused):
        await refresh(users, first)
