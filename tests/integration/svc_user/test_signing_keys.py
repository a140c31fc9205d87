"""Signing keys and access tokens: shared by replicas, rotated by age, encrypted in the database."""

import asyncio
import base64
import time

import jwt
import pytest

from chassis.rpc.auth import TokenRejected, TokenVerifier
from chassis.settings import SettingsError
from chassis.testing import as_user, eventually
from shop.chassis.v1.chassis_errors import TokenInvalid
from shop.user.v1 import auth_service_pb2 as auth_pb
from shop.user.v1 import user_service_pb2 as pb
from tests.integration.svc_user.people import ADMIN, bearing, login


async def key_ids(users):
    return [key.kid for key in (await users.auth.GetJwks(auth_pb.GetJwksRequest())).keys]


def signer(tokens):
    return jwt.get_unverified_header(tokens.access_token)["kid"]


async def age_keys(rows, interval):
    """Move the use times of the keys into the past."""
    # One statement for each row, the oldest first: use times are unique.
    for row in await rows("SELECT key_id FROM signing_key ORDER BY use_time"):
        await rows(
            "UPDATE signing_key SET use_time = use_time - $2::text::interval WHERE key_id = $1", row["key_id"], interval
        )


async def test_an_access_token_has_the_claims_of_rfc_9068(users, ann, settings):
    _, tokens = ann
    claims = jwt.decode(tokens.access_token, options={"verify_signature": False})
    header = jwt.get_unverified_header(tokens.access_token)
    with bearing(tokens):
        me = await users.accounts.GetMe(pb.GetMeRequest())
    assert (header["typ"], header["alg"]) == ("at+jwt", "EdDSA")
    assert (claims["iss"], claims["aud"]) == (settings.token_issuer, settings.token_audience)
    assert (claims["sub"], claims["roles"]) == (me.user_id, ["customer"])
    assert claims["exp"] - claims["iat"] == 900
    assert set(claims) == {"iss", "aud", "sub", "sid", "jti", "roles", "iat", "exp"}
    assert len(tokens.access_token) < 1024


async def test_other_services_verify_tokens_with_the_published_keys(users, ann, settings):
    async def fetch():
        answer = await users.auth.GetJwks(auth_pb.GetJwksRequest())
        return {"keys": [{field.name: value for field, value in key.ListFields()} for key in answer.keys]}

    verifier = TokenVerifier(fetch, settings.token_issuer, settings.token_audience)
    _, tokens = ann
    with bearing(tokens):
        me = await users.accounts.GetMe(pb.GetMeRequest())
    user = await verifier.verify(tokens.access_token)
    assert (user.id, user.roles) == (me.user_id, {"customer"})
    head, _, signature = tokens.access_token.rpartition(".")
    with pytest.raises(TokenRejected):
        await verifier.verify(f"{head}.{signature[:-4]}AAAA")


async def test_the_key_set_has_the_key_in_use_and_the_next_and_no_private_part(users, ann):
    keys = (await users.auth.GetJwks(auth_pb.GetJwksRequest())).keys
    assert len(keys) == 2
    assert signer(ann[1]) == keys[0].kid
    for key in keys:
        assert (key.kty, key.crv, key.use, key.alg) == ("OKP", "Ed25519", "sig", "EdDSA")
        assert len(base64.urlsafe_b64decode(key.x + "=")) == 32
        assert not any(key.HasField(name) for name in ("y", "n", "e"))


async def test_tokens_of_another_issuer_are_rejected(users, issuer):
    with as_user(f"Bearer {issuer.token('somebody', 'admin')}"), pytest.raises(TokenInvalid):
        await users.accounts.GetMe(pb.GetMeRequest())


async def test_replicas_publish_the_same_keys(replica, rows):
    async with replica() as one, replica() as two, replica() as three:
        sets = [await key_ids(stub) for stub in (one, two, three)]
        assert sets[0] == sets[1] == sets[2]
        tokens = await login(one, *ADMIN)
        with bearing(tokens):
            assert (await two.accounts.GetMe(pb.GetMeRequest())).email == ADMIN[0]
    assert len(await rows("SELECT 1 FROM signing_key")) == 2


async def test_replicas_that_start_at_the_same_time_generate_the_first_keys_once(settings, replica, rows):
    async def start():
        async with replica() as stub:
            return await key_ids(stub)

    first, second, third = await asyncio.gather(start(), start(), start())
    assert first == second == third
    assert len(await rows("SELECT 1 FROM signing_key")) == 2


async def test_the_next_key_signs_from_its_use_time_and_older_tokens_stay_valid(replica, rows):
    async with replica(upkeep_seconds=0.05) as users:
        before = await login(users, *ADMIN)
        old, following = await key_ids(users)
        await age_keys(rows, "30 days")

        async def next_key_generated():
            return len(await key_ids(users)) == 3

        await eventually(next_key_generated)
        after = await login(users, *ADMIN)
        assert (signer(before), signer(after)) == (old, following)
        for tokens in (before, after):
            with bearing(tokens):
                await users.accounts.GetMe(pb.GetMeRequest())
        await age_keys(rows, "1 hour")

        async def retired():
            return old not in await key_ids(users)

        await eventually(retired)
        assert signer(await login(users, *ADMIN)) == following


async def test_a_replica_loads_the_key_of_another_at_the_first_token_signed_with_it(replica, rows):
    async with replica(upkeep_seconds=3600) as idle:
        async with replica() as other:
            await login(other, *ADMIN)
        await rows("DELETE FROM signing_key")  # as an operator does whose keys were stolen
        async with replica() as other:
            tokens = await login(other, *ADMIN)
        assert signer(tokens) not in await key_ids(idle)
        with bearing(tokens):
            assert (await idle.accounts.GetMe(pb.GetMeRequest())).email == ADMIN[0]


async def test_private_keys_are_encrypted_and_another_secret_does_not_decrypt_them(replica, users, rows):
    for row in await rows("SELECT public_key, sealed_private_key FROM signing_key"):
        assert len(row["sealed_private_key"]) == 12 + 32 + 16
    with pytest.raises(SettingsError, match="SIGNING_KEY_SECRET"):
        async with replica(signing_key_secret=base64.b64encode(bytes(32)).decode()):
            pass


async def test_a_ciphertext_moved_to_the_row_of_another_key_is_not_decrypted(replica, users, rows):
    one, other = [row["key_id"] for row in await rows("SELECT key_id FROM signing_key ORDER BY use_time")]
    await rows(
        """UPDATE signing_key SET sealed_private_key = (SELECT sealed_private_key FROM signing_key WHERE key_id = $2)
           WHERE key_id = $1""",
        one,
        other,
    )
    with pytest.raises(SettingsError):
        async with replica():
            pass


@pytest.mark.parametrize("secret", ["", "c2hvcnQ=", "not base64", "A" * 43])
async def test_the_service_does_not_start_with_a_malformed_secret(replica, secret):
    with pytest.raises(SettingsError, match="SIGNING_KEY_SECRET must be 32 bytes in base64"):
        async with replica(signing_key_secret=secret):
            pass


async def test_an_expired_token_is_rejected(replica):
    async with replica(access_token_seconds=-60) as users:
        tokens = await login(users, *ADMIN)
        assert jwt.decode(tokens.access_token, options={"verify_signature": False})["exp"] < time.time()
        with bearing(tokens), pytest.raises(TokenInvalid):
            await users.accounts.GetMe(pb.GetMeRequest())
