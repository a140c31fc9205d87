"""Forgotten passwords, with the message sender's simulator as a process of its own."""

import asyncio
import os
import subprocess
import sys
from datetime import timedelta
from types import SimpleNamespace

import asyncpg
import httpx
import pytest

from chassis.testing import eventually
from shop.chassis.v1.chassis_errors import TokenInvalid
from shop.user.v1 import auth_service_pb2 as pb
from shop.user.v1 import user_service_pb2 as user_pb
from shop.user.v1.user_errors import BadCredentials, PasswordRejected, PasswordResetInvalid
from svc_user.domain_resets import TRIES
from tests.integration.svc_user.people import PASSWORD, an_email, bearing, login

KEY, NEW = "key-of-the-tests", "another horse battery"


@pytest.fixture(scope="module")
def sender_url(tmp_path_factory):
    log = tmp_path_factory.mktemp("message_sender") / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "mesh.simulators.message_sender"],
            env={"PATH": os.environ["PATH"], "LISTEN": "127.0.0.1:0", "API_KEY": KEY},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        line = process.stdout.readline()
        assert line.startswith("listening on "), log.read_text()
        yield f"http://{line.split()[-1]}"
    finally:
        process.kill()
        process.stdout.close()
        process.wait(timeout=10)


@pytest.fixture
async def sender(sender_url):
    async with httpx.AsyncClient(base_url=sender_url, headers={"authorization": f"Bearer {KEY}"}) as client:
        yield client
        await client.put("/v1/faults", json={})


@pytest.fixture
def messages(sender):
    """Returns the codes that were sent to an email address, the newest first, once there are so many."""

    async def messages(email, count=1):
        async def read():
            return (await sender.get("/v1/messages", params={"to": email})).json()["data"]

        found = await eventually(read, lambda found: len(found) >= count, seconds=30)
        assert len(found) == count
        return [one["values"]["code"] for one in found]

    return messages


@pytest.fixture
async def users(replica, sender_url):
    async with replica(message_sender_url=sender_url, message_sender_key=KEY, message_seconds=0.05) as clients:
        yield clients


@pytest.fixture
def forgotten(users, messages):
    """The calls of a user who has forgotten the password, and the codes that were sent."""

    async def request(email):
        return await users.auth.RequestPasswordReset(pb.RequestPasswordResetRequest(email=email))

    async def reset(email, code, new=NEW):
        await users.auth.ResetPassword(pb.ResetPasswordRequest(email=email, code=code, new_password=new))

    return SimpleNamespace(request=request, reset=reset, codes=messages)


async def none_due(rows):
    await eventually(
        lambda: rows("SELECT 1 FROM password_reset WHERE next_attempt_time IS NOT NULL"),
        lambda found: not found,
        seconds=30,
    )


async def test_a_code_sets_a_new_password_once_and_ends_all_sessions(users, ann, forgotten, rows):
    email, tokens = ann
    await forgotten.request(email.upper())
    (code,) = await forgotten.codes(email)
    await forgotten.reset(email, f"{code[:4]}-{code[4:].lower()}")
    with bearing(tokens), pytest.raises(TokenInvalid):
        await users.accounts.GetMe(user_pb.GetMeRequest())
    with pytest.raises(BadCredentials):
        await login(users, email)
    await login(users, email, NEW)
    with pytest.raises(PasswordResetInvalid):
        await forgotten.reset(email, code, PASSWORD)
    kinds = [row["type"].rpartition(".")[2] for row in await rows("SELECT type FROM outbox ORDER BY id")]
    assert kinds[-2:] == ["UserPasswordResetRequested", "UserPasswordChanged"]


async def test_a_request_reads_no_account_so_that_reply_and_time_are_the_same_without_one(
    ann, forgotten, database, rows
):
    connection = await asyncpg.connect(database)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE account IN ACCESS EXCLUSIVE MODE")
            replies = [await asyncio.wait_for(forgotten.request(email), 5) for email in (ann[0], an_email())]
    finally:
        await connection.close()
    assert replies[0] == replies[1]
    await none_due(rows)
    shapes = await rows("SELECT code_digest IS NULL AS nobody, sealed_email, sealed_code FROM password_reset")
    assert sorted((row["nobody"], row["sealed_email"], row["sealed_code"]) for row in shapes) == [
        (False, None, None),
        (True, None, None),
    ]


async def test_without_an_account_nothing_is_sent(forgotten, sender, rows):
    email = an_email()
    await forgotten.request(email)
    await none_due(rows)
    assert (await sender.get("/v1/messages", params={"to": email})).json() == {"data": []}


async def test_a_second_request_within_a_minute_sends_nothing(ann, forgotten, rows):
    for _ in range(3):
        await forgotten.request(ann[0])
    await none_due(rows)
    await forgotten.codes(ann[0], 1)
    await rows("UPDATE password_reset SET request_time = request_time - $1::interval", timedelta(minutes=1))
    await forgotten.request(ann[0])
    await forgotten.codes(ann[0], 2)


async def test_a_code_has_few_tries(users, ann, forgotten):
    email, _ = ann
    await forgotten.request(email)
    (code,) = await forgotten.codes(email)
    for _ in range(TRIES):
        with pytest.raises(PasswordResetInvalid):
            await forgotten.reset(email, "22222222")
    with pytest.raises(PasswordResetInvalid):
        await forgotten.reset(email, code)
    await login(users, email)


async def test_an_expired_code_is_not_valid(users, ann, forgotten, rows):
    email, _ = ann
    await forgotten.request(email)
    (code,) = await forgotten.codes(email)
    await rows("UPDATE password_reset SET expire_time = now()")
    with pytest.raises(PasswordResetInvalid):
        await forgotten.reset(email, code)
    await login(users, email)


async def test_a_code_is_not_valid_for_another_account_or_without_a_request(users, ann, forgotten):
    await forgotten.request(ann[0])
    (code,) = await forgotten.codes(ann[0])
    with pytest.raises(PasswordResetInvalid):
        await forgotten.reset(an_email(), code)
    with pytest.raises(PasswordRejected):
        await forgotten.reset(ann[0], code, "password1")
    await forgotten.reset(ann[0], code)


async def test_of_calls_with_one_code_at_the_same_time_one_sets_its_password(users, ann, forgotten):
    email, _ = ann
    await forgotten.request(email)
    (code,) = await forgotten.codes(email)
    new = [f"{NEW} {number}" for number in range(3)]
    outcomes = await asyncio.gather(*(forgotten.reset(email, code, one) for one in new), return_exceptions=True)
    (winner,) = [number for number, outcome in enumerate(outcomes) if outcome is None]
    assert all(isinstance(one, PasswordResetInvalid) for one in outcomes if one is not None)
    await login(users, email, new[winner])


async def test_a_message_without_an_answer_is_sent_again_and_arrives_once(ann, forgotten, sender, rows):
    await sender.put("/v1/faults", json={"next": ["500", "500_then_done"]})
    await forgotten.request(ann[0])
    await none_due(rows)
    await forgotten.codes(ann[0], 1)


async def test_neither_a_code_nor_an_email_address_is_in_a_row_or_a_log(ann, forgotten, rows, caplog):
    with caplog.at_level("DEBUG"):
        await forgotten.request(ann[0])
        (code,) = await forgotten.codes(ann[0])
        await none_due(rows)
    stored = str([dict(row) for table in ("password_reset", "outbox") for row in await rows(f"SELECT * FROM {table}")])
    for secret in (code, ann[0]):
        assert secret not in stored
        assert secret not in "".join(record.getMessage() + str(record.__dict__) for record in caplog.records)
