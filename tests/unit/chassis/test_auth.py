"""Access tokens: one test for each attack of RFC 8725, and for each state of the key source."""

import asyncio
import base64
import hashlib
import hmac
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from chassis.rpc.auth import KeysUnavailable, TokenRejected, TokenVerifier, http_key_source

ISSUER, AUDIENCE = "https://shopmesh.local", "shopmesh"
#: Made once: an RSA key takes a while.
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = Ed25519PrivateKey.generate()


class Keys:
    """A JWKS document that counts how often it is fetched."""

    def __init__(self, **keys):
        self.keys = keys
        self.fetched = 0

    async def __call__(self):
        self.fetched += 1
        await asyncio.sleep(0)
        return {"keys": [{**jwk, "kid": kid} for kid, jwk in self.keys.items()]}


def jwk(key, **members):
    kinds = {Ed25519PrivateKey: OKPAlgorithm, rsa.RSAPrivateKey: RSAAlgorithm, ec.EllipticCurvePrivateKey: ECAlgorithm}
    algorithm = next(algorithm for kind, algorithm in kinds.items() if isinstance(key, kind))
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), "use": "sig", **members}


def claims(**changes):
    now = int(time.time())
    every = {"iss": ISSUER, "aud": AUDIENCE, "sub": "user-1", "iat": now, "exp": now + 300, "jti": "t-1", **changes}
    return {name: value for name, value in every.items() if value is not None}


def token(key=ED_KEY, algorithm="EdDSA", kid="ed", typ="at+jwt", headers=(), **changes):
    return jwt.encode(claims(**changes), key, algorithm=algorithm, headers={"kid": kid, "typ": typ, **dict(headers)})


def forged(header, payload, sign=lambda _: b""):
    """A token assembled by hand, as no library would."""
    signed = b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, payload))
    return (signed + b"." + base64.urlsafe_b64encode(sign(signed)).rstrip(b"=")).decode()


@pytest.fixture
def keys():
    return Keys(ed=jwk(ED_KEY, alg="EdDSA"), ec=jwk(EC_KEY, alg="ES256"), rsa=jwk(RSA_KEY, alg="RS256"))


@pytest.fixture
def verifier(keys):
    return TokenVerifier(keys, ISSUER, AUDIENCE)


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"), [(ED_KEY, "EdDSA", "ed"), (EC_KEY, "ES256", "ec"), (RSA_KEY, "RS256", "rsa")]
)
async def test_a_valid_token_identifies_its_user(verifier, key, algorithm, kid):
    user = await verifier.verify(token(key, algorithm, kid, sub="user-7", roles=["staff", "admin"], sid="s-1"))
    assert (user.id, user.roles, user.session_id) == ("user-7", {"staff", "admin"}, "s-1")


async def test_the_typ_may_be_a_full_media_type(verifier):
    assert (await verifier.verify(token(typ="application/at+JWT"))).id == "user-1"


HEADER = {"alg": "EdDSA", "kid": "ed", "typ": "at+jwt"}


def attacks():
    """RFC 8725, by clause."""
    yield "3.1 alg none", forged({"alg": "none", "kid": "ed", "typ": "at+jwt"}, claims())
    yield "3.1 alg NONE", forged({"alg": "nOnE", "kid": "ed", "typ": "at+jwt"}, claims())
    for form in (serialization.PublicFormat.SubjectPublicKeyInfo, serialization.PublicFormat.PKCS1):
        public = RSA_KEY.public_key().public_bytes(serialization.Encoding.PEM, form)
        yield (
            "3.1 HS256 keyed with the public key",
            forged(
                {"alg": "HS256", "kid": "rsa", "typ": "at+jwt"},
                claims(),
                lambda signed, public=public: hmac.digest(public, signed, hashlib.sha256),
            ),
        )
    yield "3.1 another algorithm of the same key", token(RSA_KEY, "RS512", "rsa")
    yield "3.1 the algorithm of another key", token(EC_KEY, "ES256", "ed")
    yield "3.1 an algorithm that the key is not of", forged(HEADER | {"alg": "ES256"}, claims(), ED_KEY.sign)
    yield "3.2 no signature", token().rpartition(".")[0] + "."
    yield "3.2 another's signature", token(Ed25519PrivateKey.generate())
    yield (
        "3.3 changed claims",
        ".".join((token().split(".")[0], token(sub="admin").split(".")[1], token().split(".")[2])),
    )
    yield "3.8 no issuer", token(iss=None)
    yield "3.8 another issuer", token(iss="https://evil.example")
    yield "3.8 no subject", token(sub=None)
    yield "3.8 an empty subject", token(sub="")
    yield "3.9 no audience", token(aud=None)
    yield "3.9 another audience", token(aud="other")
    yield "3.10 key id as a path", token(kid="../../../dev/null")
    yield "3.10 key id as SQL", token(kid="' OR 1=1 --")
    yield (
        "3.10 key by address",
        token(Ed25519PrivateKey.generate(), kid="x", headers={"jku": "https://evil.example/jwks"}),
    )
    stranger = Ed25519PrivateKey.generate()
    yield "3.10 key brought along", token(stranger, kid="x", headers={"jwk": jwk(stranger)})
    yield "3.11 no typ", token(typ=None)
    yield "3.11 an ID token", token(typ="JWT")
    yield "3.12 a refresh token", token(typ="refresh+jwt")
    yield "no expiry", token(exp=None)
    yield "expired", token(exp=int(time.time()) - 31)
    yield "not valid yet", token(nbf=int(time.time()) + 60)
    yield "issued in the future", token(iat=int(time.time()) + 60)
    yield "no time of issue", token(iat=None)
    yield "no token id", token(jti=None)
    yield "expiry that is no number", token(exp="never")
    yield "roles that are no list", token(roles="admin")
    yield "roles that are null", forged_roles_null()
    yield "unknown critical header", token(headers={"crit": ["exp"], "exp": 1})
    yield "detached payload", token(headers={"b64": False, "crit": ["b64"]})
    yield "huge", token(pad="x" * 4096)
    yield "claims that are no object", forged({"alg": "EdDSA", "kid": "ed", "typ": "at+jwt"}, [], ED_KEY.sign)
    yield "header that is no object", forged([], claims(), ED_KEY.sign)
    yield "key id that is no text", forged({"alg": "EdDSA", "kid": ["ed"], "typ": "at+jwt"}, claims(), ED_KEY.sign)
    yield "typ that is no text", forged({"alg": "EdDSA", "kid": "ed", "typ": {}}, claims(), ED_KEY.sign)


def forged_roles_null():
    return forged({"alg": "EdDSA", "kid": "ed", "typ": "at+jwt"}, {**claims(), "roles": None}, ED_KEY.sign)


ATTACKS = [name for name, _ in attacks()]


@pytest.mark.parametrize("place", range(len(ATTACKS)), ids=ATTACKS)
async def test_an_invalid_token_is_rejected(verifier, place):
    """Each is made now: one made at collection would be rejected for its age."""
    with pytest.raises(TokenRejected):
        await verifier.verify(list(attacks())[place][1])


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"), [(ED_KEY, "EdDSA", "ed"), (EC_KEY, "ES256", "ec"), (RSA_KEY, "RS256", "rsa")]
)
async def test_a_key_verifies_its_own_algorithm_alone(verifier, monkeypatch, key, algorithm, kid):
    """PyJWT rejects a mismatch too, but older versions did not: check the algorithms that PyJWT may accept."""
    allowed = []
    decode = jwt.decode

    def decode_and_record(*arguments, **options):
        allowed.append(options["algorithms"])
        return decode(*arguments, **options)

    monkeypatch.setattr(jwt, "decode", decode_and_record)
    await verifier.verify(token(key, algorithm, kid))
    assert allowed == [[algorithm]]


async def test_the_forging_function_of_these_tests_can_make_valid_tokens(verifier):
    """Or the attacks above would prove nothing."""
    good = forged({"alg": "EdDSA", "kid": "ed", "typ": "at+jwt"}, claims(), ED_KEY.sign)
    assert (await verifier.verify(good)).id == "user-1"


@given(
    st.text()
    | st.lists(st.binary(), min_size=3, max_size=3).map(
        lambda parts: ".".join(base64.urlsafe_b64encode(part).decode() for part in parts)
    )
)
def test_any_text_is_rejected_and_no_unexpected_error(text):
    with pytest.raises(TokenRejected):
        asyncio.run(TokenVerifier(Keys(), ISSUER, AUDIENCE).verify(text))


async def test_a_clock_skew_of_30_seconds_is_tolerated(verifier):
    assert (await verifier.verify(token(exp=int(time.time()) - 20))).id == "user-1"


async def test_a_cached_token_is_rejected_once_it_has_expired(verifier, monkeypatch):
    """Verified tokens are cached, but no longer than they are valid."""
    monkeypatch.setattr("chassis.rpc.auth._LEEWAY_SECONDS", 0)
    short = token(exp=int(time.time()) + 4)
    await verifier.verify(short)
    async with asyncio.timeout(30):
        while True:
            try:
                await verifier.verify(short)
            except TokenRejected:
                break
            await asyncio.sleep(0.05)


async def test_a_valid_token_is_verified_by_the_keys_once(verifier, keys):
    good = token()
    for _ in range(3):
        await verifier.verify(good)
    assert keys.fetched == 1


async def test_unknown_key_ids_do_not_cause_a_fetch_each(verifier, keys):
    async def attack(number):
        with pytest.raises(TokenRejected):
            await verifier.verify(token(kid=f"invented-{number}"))

    await asyncio.gather(*map(attack, range(50)))
    assert keys.fetched == 1


async def test_a_rotated_key_is_fetched(verifier, keys):
    await verifier.verify(token())
    fresh = Ed25519PrivateKey.generate()
    keys.keys = {"ed": keys.keys["ed"], "fresh": jwk(fresh, alg="EdDSA")}
    verifier._fetch_after = 0.0  # as if the pause between two fetches were over
    assert (await verifier.verify(token(fresh, kid="fresh"))).id == "user-1"
    assert (await verifier.verify(token(jti="t-2"))).id == "user-1"
    assert keys.fetched == 2


async def test_a_key_that_is_no_longer_published_is_not_trusted(verifier, keys):
    await verifier.verify(token())
    fresh = Ed25519PrivateKey.generate()
    keys.keys = {"fresh": jwk(fresh, alg="EdDSA")}
    verifier._fetch_after = 0.0  # as if the pause between two fetches were over
    await verifier.verify(token(fresh, kid="fresh"))
    with pytest.raises(TokenRejected):
        await verifier.verify(token(jti="t-2"))


async def test_verified_tokens_are_cached_up_to_a_number(verifier, monkeypatch):
    monkeypatch.setattr("chassis.rpc.auth._CACHED_TOKENS", 3)
    for number in range(10):
        await verifier.verify(token(jti=f"t-{number}"))
    assert 0 < len(verifier._verified) <= 3


async def test_unsupported_keys_do_not_affect_the_others(keys):
    keys.keys["future"] = {"kty": "PQC", "use": "sig"}
    keys.keys["broken"] = {"kty": "OKP", "crv": "Ed25519", "x": "!"}
    keys.keys["secret"] = {"kty": "oct", "k": base64.urlsafe_b64encode(b"s" * 32).decode(), "alg": "HS256"}
    keys.keys["encryption"] = jwk(RSA_KEY, use="enc")

    async def with_one_that_has_no_name():
        return {"keys": [jwk(EC_KEY), *(await keys())["keys"]]}

    verifier = TokenVerifier(with_one_that_has_no_name, ISSUER, AUDIENCE)
    assert (await verifier.verify(token())).id == "user-1"
    with pytest.raises(TokenRejected):
        await verifier.verify(token(b"s" * 32, "HS256", "secret"))
    with pytest.raises(TokenRejected):
        await verifier.verify(token(RSA_KEY, "RS256", "encryption"))


async def test_an_unavailable_key_source_is_no_invalid_token_and_is_not_fetched_at_every_call(monkeypatch):
    monkeypatch.setattr("chassis.rpc.auth._RETRY_FETCH_SECONDS", 60)
    asked = 0

    async def away():
        nonlocal asked
        asked += 1
        raise ConnectionRefusedError

    verifier = TokenVerifier(away, ISSUER, AUDIENCE)

    async def call(number):
        with pytest.raises(KeysUnavailable):
            await verifier.verify(token(jti=f"t-{number}"))

    await asyncio.gather(*map(call, range(20)))
    assert asked == 1


async def test_an_available_key_source_is_fetched_again(keys):
    answers = iter([ConnectionRefusedError()])

    async def flaky():
        if error := next(answers, None):
            raise error
        return await keys()

    verifier = TokenVerifier(flaky, ISSUER, AUDIENCE)
    with pytest.raises(KeysUnavailable):
        await verifier.verify(token())
    verifier._fetch_after = 0.0  # as if the pause were over
    assert (await verifier.verify(token())).id == "user-1"


async def test_a_jwks_address_without_a_response_is_an_unavailable_key_source():
    verifier = TokenVerifier(http_key_source("http://127.0.0.1:1/jwks"), ISSUER, AUDIENCE)
    with pytest.raises(KeysUnavailable):
        await verifier.verify(token())
