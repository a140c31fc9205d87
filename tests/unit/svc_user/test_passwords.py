"""Password hashes, computed beside the loop."""

import asyncio

import pytest

from chassis.postgres.database import Overloaded
from svc_user.passwords import Passwords


@pytest.fixture
async def passwords():
    passwords = Passwords(threads=1, waiting=2)
    yield passwords
    await passwords.close()


async def test_a_hash_is_right_for_its_password_only(passwords):
    stored = await passwords.hash("correct horse")
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert await passwords.verify("correct horse", stored)
    assert not await passwords.verify("wrong horse", stored)
    assert not passwords.outdated(stored)


async def test_without_an_account_no_password_is_right(passwords):
    assert not await passwords.verify("correct horse", None)


async def test_two_hashes_of_one_password_differ(passwords):
    assert await passwords.hash("correct horse") != await passwords.hash("correct horse")


async def test_the_loop_goes_on_while_a_hash_is_computed(passwords):
    hashing = asyncio.create_task(passwords.hash("correct horse"))
    turns = 0
    while not hashing.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 1  # one would mean that it was computed within the loop's own turn


async def test_who_finds_the_queue_full_is_refused_at_once(passwords):
    under_way = [asyncio.create_task(passwords.hash("correct horse")) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await passwords.hash("correct horse")
    await asyncio.gather(*under_way)
    assert await passwords.hash("correct horse")


async def test_who_gives_up_waiting_leaves_the_place_to_another(passwords):
    under_way = [asyncio.create_task(passwords.hash("correct horse")) for _ in range(3)]
    await asyncio.sleep(0)
    under_way[2].cancel()
    with pytest.raises(asyncio.CancelledError):
        await under_way[2]
    assert await passwords.hash("correct horse")
    await asyncio.gather(*under_way[:2])
