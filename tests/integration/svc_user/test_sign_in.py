"""Registration and sign-in, on a real database."""

import asyncio
import time

import pytest
from argon2 import PasswordHasher, extract_parameters

from chassis.testing import as_user
from shop.chassis.v1.chassis_errors import InvalidRequest, Overloaded, TokenInvalid
from shop.user.v1 import auth_service_pb2 as auth_pb
from shop.user.v1 import user_service_pb2 as pb
from shop.user.v1.user_errors import BadCredentials, EmailTaken, LoginThrottled
from shop.user.v1.user_events_pb2 import UserRegistered
from svc_user.domain import FREE_ATTEMPTS
from tests.integration.svc_user.people import PASSWORD, an_email, bearing, login, register


async def test_a_person_registers_signs_in_and_is_known(users):
    user = await register(users, "Ann@Example.com", display_name="Ann")
    assert (user.email, user.display_name, list(user.roles), user.etag) == ("ann@example.com", "Ann", ["customer"], "1")
    tokens = await login(users, "ANN@example.com")
    assert (tokens.token_type, tokens.expires_in) == ("Bearer", 900)
    with bearing(tokens):
        assert await users.accounts.GetMe(pb.GetMeRequest()) == user


async def test_an_email_address_belongs_to_one_account_however_it_is_written(users):
    await register(users, "ann@example.com")
    with pytest.raises(EmailTaken):
        await register(users, "ANN@example.com")


async def test_a_repeated_registration_returns_the_first_and_needs_the_same_password(users, rows):
    first = await register(users, "ann@example.com", request_id="r-1")
    assert await register(users, "ann@example.com", request_id="r-1") == first
    with pytest.raises(EmailTaken):
        await register(users, "ann@example.com", "another password", request_id="r-1")
    assert (
        len(await rows("SELECT 1 FROM outbox WHERE type = 'shop.user.v1.UserRegistered' AND key = $1", first.user_id))
        == 1
    )


async def test_of_ten_people_who_register_one_address_at_once_one_has_it(users, rows):
    async def attempt():
        try:
            return await register(users, "ann@example.com")
        except EmailTaken:
            return None

    made = [user for user in await asyncio.gather(*(attempt() for _ in range(10))) if user]
    assert len(made) == 1
    assert len(await rows("SELECT 1 FROM account WHERE email = 'ann@example.com'")) == 1


async def test_a_registration_tells_no_more_than_that_there_is_somebody(users, rows):
    user = await register(users, "ann@example.com", display_name="Ann")
    (row,) = await rows("SELECT payload, topic FROM outbox WHERE key = $1", user.user_id)
    assert row["topic"] == "shop.user.v1.User"
    assert UserRegistered.FromString(row["payload"]) == UserRegistered(
        user_id=user.user_id, version=1, roles=["customer"]
    )


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"email": "not an address"}, "email"),
        ({"password": "short"}, "password"),
        ({"password": "x" * 257}, "password"),
        ({"password": "pass\0word"}, "password"),
        ({"request_id": ""}, "request_id"),
        ({"display_name": "a\nb"}, "display_name"),
    ],
)
async def test_a_registration_keeps_the_rules_of_the_proto(users, changes, field):
    fields = {"email": "ann@example.com", "password": PASSWORD, "request_id": "r-1", **changes}
    with pytest.raises(InvalidRequest) as refusal:
        await users.accounts.Register(pb.RegisterRequest(**fields))
    assert refusal.value.metadata["field"] == field


async def test_passwords_are_kept_as_argon2id_and_nowhere_else(users, rows):
    await register(users, "ann@example.com")
    (row,) = await rows("SELECT password_hash FROM account WHERE email = 'ann@example.com'")
    parameters = extract_parameters(row["password_hash"])
    assert (parameters.type.name, parameters.memory_cost, parameters.time_cost, parameters.parallelism) == (
        "ID",
        19456,
        2,
        1,
    )
    assert not await rows("SELECT 1 FROM idempotency")


async def test_the_same_characters_typed_on_another_system_are_the_same_password(users):
    composed, decomposed = "caf\u00e9 cr\u00e8me", "cafe\u0301 cre\u0300me"
    await register(users, "ann@example.com", composed)
    await login(users, "ann@example.com", decomposed)


async def test_a_wrong_password_and_an_unknown_address_get_the_same_answer(users):
    await register(users, "ann@example.com")
    refusals = []
    for email in ("ann@example.com", "nobody@example.com"):
        with pytest.raises(BadCredentials) as refusal:
            await login(users, email, "wrong password")
        refusals.append((refusal.value.message, refusal.value.metadata))
    assert refusals[0] == refusals[1]


async def test_a_wrong_password_and_an_unknown_address_take_the_same_time(users):
    """Without the decoy an unknown address is answered several times as fast."""

    async def seconds(email):
        began = time.perf_counter()
        with pytest.raises(BadCredentials):
            await login(users, email, "wrong password")
        return time.perf_counter() - began

    known, unknown = [], []
    for _ in range(3):
        email = an_email()
        await register(users, email)
        for _ in range(FREE_ATTEMPTS - 1):
            known.append(await seconds(email))
            unknown.append(await seconds(an_email()))
    assert 0.5 < min(unknown) / min(known) < 2  # the quickest of each: a busy machine only ever adds


async def free_guesses(users, email):
    """Guess until there is a pause. A slow machine may sleep through the first pauses, but they double."""
    for guesses in range(FREE_ATTEMPTS + 6):
        with pytest.raises((BadCredentials, LoginThrottled)) as refusal:
            await login(users, email, "wrong password")
        if refusal.type is LoginThrottled:
            return guesses
    raise AssertionError("never throttled")


async def test_guessing_is_throttled_and_an_unknown_address_looks_the_same(users, rows):
    await register(users, "ann@example.com")
    for email in ("ann@example.com", "nobody@example.com"):
        assert await free_guesses(users, email) >= FREE_ATTEMPTS
    await rows("UPDATE login_throttle SET retry_time = now() + interval '1 hour'")
    with pytest.raises(LoginThrottled):
        await login(users, "ann@example.com")  # even the right password, or the answer would tell which it is


async def test_guesses_made_at_once_are_counted_one_by_one(users):
    await register(users, "ann@example.com")

    async def guess(number):
        try:
            await login(users, "ann@example.com", f"guess {number}")
        except (BadCredentials, LoginThrottled) as refusal:
            return type(refusal)

    kinds = await asyncio.gather(*map(guess, range(40)))
    assert set(kinds) == {BadCredentials, LoginThrottled}
    assert FREE_ATTEMPTS <= kinds.count(BadCredentials) < FREE_ATTEMPTS + 6  # some more where a pause was slept through


async def test_the_pause_ends_and_signing_in_forgets_the_failures(users, rows):
    await register(users, "ann@example.com")
    assert await free_guesses(users, "ann@example.com") >= FREE_ATTEMPTS
    await rows("UPDATE login_throttle SET retry_time = now()")
    await login(users, "ann@example.com")
    assert not await rows("SELECT 1 FROM login_throttle")


async def test_what_somebody_typed_as_an_address_is_not_stored(users, rows):
    with pytest.raises(BadCredentials):
        await login(users, "my secret password", "typed into the wrong field")
    (row,) = await rows("SELECT login_throttle::text AS shown FROM login_throttle")
    assert "secret" not in row["shown"]


async def test_a_hash_with_weaker_parameters_is_renewed_at_the_next_sign_in(users, rows):
    await register(users, "ann@example.com")
    weak = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    await rows("UPDATE account SET password_hash = $1 WHERE email = 'ann@example.com'", weak)
    await login(users, "ann@example.com")
    (row,) = await rows("SELECT password_hash FROM account WHERE email = 'ann@example.com'")
    assert extract_parameters(row["password_hash"]).memory_cost == 19456
    await login(users, "ann@example.com")


async def test_a_wrong_password_does_not_renew_a_hash(users, rows):
    await register(users, "ann@example.com")
    weak = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    await rows("UPDATE account SET password_hash = $1 WHERE email = 'ann@example.com'", weak)
    with pytest.raises(BadCredentials):
        await login(users, "ann@example.com", "wrong password")
    (row,) = await rows("SELECT password_hash FROM account WHERE email = 'ann@example.com'")
    assert row["password_hash"] == weak


async def test_a_crowd_at_the_door_is_turned_away_and_the_rest_is_served(replica):
    async with replica(password_threads=1, password_queue=1) as users:

        async def attempt():
            try:
                await login(users, an_email(), "wrong password")
            except (BadCredentials, Overloaded) as refusal:
                return type(refusal)

        kinds = await asyncio.gather(*(attempt() for _ in range(30)))
        assert set(kinds) == {BadCredentials, Overloaded}
        with pytest.raises(BadCredentials):
            await login(users, an_email(), "wrong password")


async def test_a_token_that_is_no_longer_valid_does_not_keep_anybody_from_signing_in(users):
    email = an_email()
    await register(users, email)
    with as_user("Bearer not.a.token"):
        assert (await login(users, email)).access_token
        with pytest.raises(TokenInvalid):
            await users.accounts.GetMe(pb.GetMeRequest())


async def test_a_login_may_be_repeated_and_begins_another_session(users, rows):
    user = await register(users, "ann@example.com")
    request = auth_pb.LoginRequest(email="ann@example.com", password=PASSWORD)
    assert (await users.auth.Login(request)).refresh_token != (await users.auth.Login(request)).refresh_token
    assert len(await rows("SELECT 1 FROM session WHERE user_id = $1", user.user_id)) == 2
