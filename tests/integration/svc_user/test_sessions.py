"""Sessions: the rotation of refresh tokens, and the end of sessions."""

import asyncio
import logging

import asyncpg
import pytest

from chassis.testing import eventually
from shop.chassis.v1.chassis_errors import TokenInvalid
from shop.user.v1 import auth_service_pb2 as auth_pb
from shop.user.v1 import user_service_pb2 as pb
from shop.user.v1.user_errors import RefreshTokenInvalid, TokenReused
from tests.integration.svc_user.people import an_email, bearing, login, refresh, register

#: Sessions that break I32: at most one live token, none after the reuse of a token.
BROKEN_FAMILIES = """
SELECT session_id FROM session JOIN refresh_token USING (session_id)
GROUP BY session_id, end_time, end_reason
HAVING count(*) FILTER (WHERE rotate_time IS NULL AND end_time IS NULL) > 1
    OR (end_reason = 'TOKEN_REUSED' AND end_time IS NULL)"""


async def pass_grace_period(rows):
    """Move the rotations back by more than the grace period, by the database's clock."""
    await rows(
        "UPDATE refresh_token SET rotate_time = rotate_time - interval '11 seconds' WHERE rotate_time IS NOT NULL"
    )


async def test_a_refresh_returns_the_next_tokens_of_the_same_session(users, ann, rows):
    _, first = ann
    second = await refresh(users, first)
    assert second.refresh_token != first.refresh_token
    third = await refresh(users, second)
    with bearing(third):
        await users.accounts.GetMe(pb.GetMeRequest())
    assert len(await rows("SELECT 1 FROM session")) == 1


async def test_a_repeated_refresh_returns_the_same_successor(users, ann):
    _, first = ann
    assert (await refresh(users, first)).refresh_token == (await refresh(users, first)).refresh_token


async def test_reuse_after_the_grace_period_ends_the_session(users, ann, rows, caplog):
    _, first = ann
    second = await refresh(users, first)
    await pass_grace_period(rows)
    with caplog.at_level(logging.WARNING, "chassis.audit"), pytest.raises(TokenReused):
        await refresh(users, first)
    assert [record.message for record in caplog.records if record.name == "chassis.audit"] == ["authn_token_reuse"]
    for token in (first, second):
        with pytest.raises(RefreshTokenInvalid):
            await refresh(users, token)
    with bearing(second), pytest.raises(TokenInvalid):
        await users.accounts.GetMe(pb.GetMeRequest())
    assert not await rows(BROKEN_FAMILIES)


async def test_reuse_after_the_successor_was_used_ends_the_session_within_the_grace_period(users, ann):
    _, first = ann
    third = await refresh(users, await refresh(users, first))
    with pytest.raises(TokenReused):
        await refresh(users, first)
    with pytest.raises(RefreshTokenInvalid):
        await refresh(users, third)


async def test_reuse_in_one_session_does_not_end_others_of_the_user(users, ann, rows):
    email, first = ann
    elsewhere = await login(users, email)
    await refresh(users, first)
    await pass_grace_period(rows)
    with pytest.raises(TokenReused):
        await refresh(users, first)
    assert (await refresh(users, elsewhere)).access_token


async def test_concurrent_refreshes_leave_one_session_with_one_live_token(users, replica, ann, rows):
    _, first = ann
    async with replica() as twin:
        given = await asyncio.gather(*(refresh(stub, first) for stub in (users, twin) for _ in range(10)))
    assert len({tokens.refresh_token for tokens in given}) == 1
    assert len(await rows("SELECT 1 FROM refresh_token WHERE rotate_time IS NULL")) == 1
    assert len(await rows("SELECT 1 FROM session")) == 1
    assert (await refresh(users, given[0])).access_token


async def test_of_two_clients_with_one_token_the_slower_is_detected_as_reuse(users, ann, rows):
    _, stolen = ann
    owner, thief = await refresh(users, stolen), await refresh(users, stolen)
    owner = await refresh(users, await refresh(users, owner))
    with pytest.raises(TokenReused):
        await refresh(users, thief)
    with pytest.raises(RefreshTokenInvalid):
        await refresh(users, owner)
    assert not await rows(BROKEN_FAMILIES)


async def test_a_unique_index_rejects_a_second_live_token(users, ann, rows):
    with pytest.raises(asyncpg.UniqueViolationError):
        await rows(
            """INSERT INTO refresh_token (token_digest, session_id, create_time)
               SELECT sha256('another'), session_id, now() FROM session"""
        )


async def test_an_unknown_token_is_rejected(users):
    with pytest.raises(RefreshTokenInvalid):
        await users.auth.RefreshToken(auth_pb.RefreshTokenRequest(refresh_token="x" * 43))


async def test_no_token_is_stored_as_plain_text(users, ann, rows):
    _, first = ann
    second = await refresh(users, first)
    stored = str(await rows("SELECT refresh_token::text FROM refresh_token")) + str(
        await rows("SELECT * FROM refresh_token")
    )
    for token in (first.refresh_token, second.refresh_token):
        assert token not in stored
        assert token.encode().hex() not in stored


async def test_successors_are_erased_after_their_grace_period(replica, rows):
    async with replica(upkeep_seconds=0.05) as users:
        email = an_email()
        await register(users, email)
        await refresh(users, await login(users, email))

        async def erased():
            return not await rows("SELECT 1 FROM refresh_token WHERE sealed_successor IS NOT NULL")

        assert not await erased()
        await pass_grace_period(rows)
        await eventually(erased)


async def test_a_session_expires_without_a_refresh_and_a_refresh_extends_it(users, ann, rows):
    _, first = ann
    await rows("UPDATE session SET expire_time = now() + interval '1 minute'")
    second = await refresh(users, first)
    (row,) = await rows("SELECT expire_time - now() > interval '13 days' AS put_off FROM session")
    assert row["put_off"]
    await rows("UPDATE session SET expire_time = now()")
    with pytest.raises(RefreshTokenInvalid):
        await refresh(users, second)
    with bearing(second), pytest.raises(TokenInvalid):
        await users.accounts.GetMe(pb.GetMeRequest())


async def test_a_logout_ends_its_own_session_alone_and_may_be_repeated(users, ann):
    email, here = ann
    elsewhere = await login(users, email)
    with bearing(here):
        await users.auth.Logout(auth_pb.LogoutRequest())
        await users.auth.Logout(auth_pb.LogoutRequest())
        with pytest.raises(TokenInvalid):
            await users.accounts.GetMe(pb.GetMeRequest())
    with pytest.raises(RefreshTokenInvalid):
        await refresh(users, here)
    assert (await refresh(users, elsewhere)).access_token


async def test_a_logout_of_all_sessions_ends_those_of_the_user_alone(users, ann, admin):
    email, here = ann
    elsewhere = await login(users, email)
    with bearing(here):
        await users.auth.Logout(auth_pb.LogoutRequest(all_sessions=True))
    for tokens in (here, elsewhere):
        with pytest.raises(RefreshTokenInvalid):
            await refresh(users, tokens)
    assert (await refresh(users, admin)).access_token


async def test_sessions_a_week_after_their_expiry_and_throttles_of_the_day_before_are_purged(replica, rows):
    async with replica() as users:
        email, other = an_email(), an_email()
        await register(users, email)
        await register(users, other)
        await login(users, email)
        await login(users, other)
        kept = await rows("SELECT session_id FROM session JOIN account USING (user_id) WHERE email = $1", other)
        await rows(
            """UPDATE session SET expire_time = now() - CASE WHEN session_id = $1 THEN interval '6 days'
                   ELSE interval '8 days' END""",
            kept[0]["session_id"],
        )
        await rows(
            """INSERT INTO login_throttle SELECT sha256(age::text::bytea), 1, now(), now() - age
               FROM unnest(ARRAY[interval '23 hours', interval '25 hours']) AS age"""
        )

    async def left():
        return await rows("SELECT session_id FROM session"), await rows("SELECT 1 FROM login_throttle")

    async with replica():
        await eventually(left, lambda found: found[0] == kept and len(found[1]) == 1)
        assert await rows("SELECT DISTINCT session_id FROM refresh_token") == kept


async def test_a_session_keeps_two_generations_of_tokens_and_notices_the_reuse_of_older_ones(users, ann, rows):
    """B19: a session of 90 days would otherwise keep thousands."""
    _, first = ann
    tokens = first
    for _ in range(5):
        tokens = await refresh(users, tokens)
    assert len(await rows("SELECT 1 FROM refresh_token")) == 2
    with pytest.raises(TokenReused):
        await refresh(users, first)
    with pytest.raises(RefreshTokenInvalid):
        await refresh(users, tokens)


async def test_a_session_of_before_keeps_its_tokens_and_notices_their_reuse(users, ann, rows):
    """Its tokens have no family by which a deleted one could be found."""
    _, first = ann
    await rows("UPDATE session SET family_digest = NULL")
    second = await refresh(users, first)
    third = await refresh(users, second)
    assert len(await rows("SELECT 1 FROM refresh_token")) == 3
    with pytest.raises(TokenReused):
        await refresh(users, first)
    with pytest.raises(RefreshTokenInvalid):
        await refresh(users, third)


async def test_a_token_of_an_invented_family_is_invalid(users, ann):
    request = auth_pb.RefreshTokenRequest(refresh_token="invented.token")
    with pytest.raises(RefreshTokenInvalid):
        await users.auth.RefreshToken(request)
