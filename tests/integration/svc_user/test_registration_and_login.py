"""Registration and login, on a real database."""

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
from svc_user.domain_logins import FREE_ATTEMPTS
from tests.integration.svc_user.people import PASSWORD, an_email, bearing, login, register


async def test_a_registered_user_logs_in_and_reads_the_account(users):
    user = await register(users, "Ann@Example.com", display_name="Ann")
    assert (user.email, user.display_name, list(user.roles), user.etag) == ("ann@example.com", "Ann", ["customer"], "1")
    tokens = await login(users, "ANN@example.com")
    assert (tokens.token_type, tokens.expires_in) == ("Bearer", 900)
    with bearing(tokens):
        assert await users.accounts.GetMe(pb.GetMeRequest()) == user


async def test_a_taken_email_address_is_rejected_in_any_letter_case(users):
    await register(users, "ann@example.com")
    with pytest.raises(EmailTaken):
        await register(users, "ANN@example.com")


async def test_a_repeated_registration_returns_the_first_account_and_requires_its_password(users, rows):
    first = await register(users, "ann@example.com", request_id="r-1")
    assert await register(users, "ann@example.com", request_id="r-1") == first
    with pytest.raises(EmailTaken):
        await register(users, "ann@example.com", "another password", request_id="r-1")
    assert (
        len(await rows("SELECT 1 FROM outbox WHERE type = 'shop.user.v1.UserRegistered' AND key = $1", first.user_id))
        == 1
    )


async def test_of_concurrent_registrations_of_one_address_one_succeeds(users, rows):
    async def attempt():
        try:
            return await register(users, "ann@example.com")
        except EmailTaken:
            return None

    created = [user for user in await asyncio.gather(*(attempt() for _ in range(10))) if user]
    assert len(created) == 1
    assert len(await rows("SELECT 1 FROM account WHERE email = 'ann@example.com'")) == 1


async def test_the_event_of_a_registration_has_no_personal_data(users, rows):
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
async def test_a_registration_that_breaks_a_validation_rule_is_rejected_by_its_field(users, changes, field):
    fields = {"email": "ann@example.com", "password": PASSWORD, "request_id": "r-1", **changes}
    with pytest.raises(InvalidRequest) as error:
        await users.accounts.Register(pb.RegisterRequest(**fields))
    assert error.value.metadata["field"] == field


async def test_passwords_are_stored_as_argon2id_hashes_alone(users, rows):
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


async def test_composed_and_decomposed_characters_are_the_same_password(users):
    composed, decomposed = "caf\u00e9 cr\u00e8me", "cafe\u0301 cre\u0300me"
    await register(users, "ann@example.com", composed)
    await login(users, "ann@example.com", decomposed)


async def test_a_wrong_password_and_an_unknown_address_get_the_same_reply(users):
    await register(users, "ann@example.com")
    errors = []
    for email in ("ann@example.com", "nobody@example.com"):
        with pytest.raises(BadCredentials) as error:
            await login(users, email, "wrong password")
        errors.append((error.value.message, error.value.metadata))
    assert errors[0] == errors[1]


async def test_a_wrong_password_and_an_unknown_address_take_the_same_time(users):
    """Without the decoy hash the reply for an unknown address is several times as fast."""

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
    assert 0.5 < min(unknown) / min(known) < 2  # the fastest of each: load only adds time


async def free_guesses(users, email):
    """Guess until a pause. On a slow machine the first pauses may end before the next guess, but they double."""
    for guesses in range(FREE_ATTEMPTS + 6):
        with pytest.raises((BadCredentials, LoginThrottled)) as error:
            await login(users, email, "wrong password")
        if error.type is LoginThrottled:
            return guesses
    raise AssertionError("never throttled")


async def test_guesses_are_throttled_for_known_and_unknown_addresses_alike(users, rows):
    await register(users, "ann@example.com")
    for email in ("ann@example.com", "nobody@example.com"):
        assert await free_guesses(users, email) >= FREE_ATTEMPTS
    await rows("UPDATE login_throttle SET retry_time = now() + interval '1 hour'")
    with pytest.raises(LoginThrottled) as raised:
        await login(users, "ann@example.com")  # even the right password, or the reply would reveal it
    assert raised.value.retry_seconds > 3000


async def test_concurrent_guesses_are_counted_one_by_one(users):
    await register(users, "ann@example.com")

    async def guess(number):
        try:
            await login(users, "ann@example.com", f"guess {number}")
        except (BadCredentials, LoginThrottled) as error:
            return type(error)

    kinds = await asyncio.gather(*map(guess, range(40)))
    assert set(kinds) == {BadCredentials, LoginThrottled}
    assert (
        FREE_ATTEMPTS <= kinds.count(BadCredentials) < FREE_ATTEMPTS + 6
    )  # more where a pause ended before the next guess


async def test_a_login_after_the_pause_resets_the_throttle(users, rows):
    await register(users, "ann@example.com")
    assert await free_guesses(users, "ann@example.com") >= FREE_ATTEMPTS
    await rows("UPDATE login_throttle SET retry_time = now()")
    await login(users, "ann@example.com")
    assert not await rows("SELECT 1 FROM login_throttle")


async def test_an_unknown_address_is_stored_as_a_digest_alone(users, rows):
    with pytest.raises(BadCredentials):
        await login(users, "my secret password", "typed into the wrong field")
    stored = await rows("SELECT login_throttle::text AS shown FROM login_throttle")
    assert len(stored) == 2, "one for the client, one for all clients"
    assert not any("secret" in row["shown"] for row in stored)


async def test_a_login_replaces_a_hash_with_weaker_parameters(users, rows):
    await register(users, "ann@example.com")
    weak = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    await rows("UPDATE account SET password_hash = $1 WHERE email = 'ann@example.com'", weak)
    await login(users, "ann@example.com")
    (row,) = await rows("SELECT password_hash FROM account WHERE email = 'ann@example.com'")
    assert extract_parameters(row["password_hash"]).memory_cost == 19456
    await login(users, "ann@example.com")


async def test_a_wrong_password_does_not_replace_a_hash(users, rows):
    await register(users, "ann@example.com")
    weak = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    await rows("UPDATE account SET password_hash = $1 WHERE email = 'ann@example.com'", weak)
    with pytest.raises(BadCredentials):
        await login(users, "ann@example.com", "wrong password")
    (row,) = await rows("SELECT password_hash FROM account WHERE email = 'ann@example.com'")
    assert row["password_hash"] == weak


async def test_logins_beyond_the_queue_of_hashes_fail_with_overloaded(replica):
    async with replica(password_threads=1, password_queue=1) as users:

        async def attempt():
            try:
                await login(users, an_email(), "wrong password")
            except (BadCredentials, Overloaded) as error:
                return type(error)

        kinds = await asyncio.gather(*(attempt() for _ in range(30)))
        assert set(kinds) == {BadCredentials, Overloaded}
        with pytest.raises(BadCredentials):
            await login(users, an_email(), "wrong password")


async def test_an_invalid_token_does_not_prevent_a_login(users):
    email = an_email()
    await register(users, email)
    with as_user("Bearer not.a.token"):
        assert (await login(users, email)).access_token
        with pytest.raises(TokenInvalid):
            await users.accounts.GetMe(pb.GetMeRequest())


async def test_a_repeated_login_begins_another_session(users, rows):
    user = await register(users, "ann@example.com")
    request = auth_pb.LoginRequest(email="ann@example.com", password=PASSWORD)
    assert (await users.auth.Login(request)).refresh_token != (await users.auth.Login(request)).refresh_token
    assert len(await rows("SELECT 1 FROM session WHERE user_id = $1", user.user_id)) == 2
