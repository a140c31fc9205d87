"""Password hashes, computed on threads."""

import asyncio

import pytest

from chassis.postgres.database import Overloaded
from svc_user.passwords import Passwords


@pytest.fixture
async def passwords():
    passwords = Passwords(threads=1, queue=2)
    yield passwords
    await passwords.close()


async def test_a_hash_verifies_its_password_alone(passwords):
    stored = await passwords.hash("correct horse")
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert await passwords.verify("correct horse", stored)
    assert not await passwords.verify("wrong horse", stored)
    assert not passwords.is_outdated(stored)


async def test_without_an_account_no_password_is_verified(passwords):
    assert not await passwords.verify("correct horse", None)


async def test_two_hashes_of_one_password_differ(passwords):
    assert await passwords.hash("correct horse") != await passwords.hash("correct horse")


async def test_the_event_loop_runs_while_a_hash_is_computed(passwords):
    hashing = asyncio.create_task(passwords.hash("correct horse"))
    turns = 0
    while not hashing.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 1  # one would mean that it was computed on the event loop


async def test_a_full_queue_rejects_a_hash_at_once(passwords):
    in_progress = [asyncio.create_task(passwords.hash("correct horse")) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await passwords.hash("correct horse")
    await asyncio.gather(*in_progress)
    assert await passwords.hash("correct horse")


async def test_a_cancelled_hash_leaves_the_queue(passwords):
    in_progress = [asyncio.create_task(passwords.hash("correct horse")) for _ in range(3)]
    await asyncio.sleep(0)
    in_progress[2].cancel()
    with pytest.raises(asyncio.CancelledError):
        await in_progress[2]
    assert await passwords.hash("correct horse")
    await asyncio.gather(*in_progress[:2])
