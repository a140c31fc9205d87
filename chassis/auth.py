"""Who the end user is: access tokens, verified against the issuer's published keys (RFC 8725, RFC 9068)."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import jwt
from jwt import PyJWK

from chassis.context import User

_ALGORITHMS = ["EdDSA", "ES256", "RS256"]
_CLAIMS = ["exp", "iat", "iss", "aud", "sub", "jti"]
_LEEWAY_SECONDS = 30
_MAX_TOKEN_BYTES = 4096
_REMEMBERED = 10_000
#: Keys are fetched again for an unknown key id, but not more often than this: anyone can invent key ids.
_REFETCH_SECONDS = 5.0

#: Returns a JSON Web Key Set as parsed JSON.
KeySource = Callable[[], Awaitable[dict[str, Any]]]


class TokenRefused(Exception):
    """The access token is not acceptable; the text is for the log only."""


def http_key_source(url: str) -> KeySource:
    """Fetch the key set from a JWKS address, such as a foreign OIDC issuer's."""

    async def fetch() -> dict[str, Any]:
        async with httpx.AsyncClient(timeout=5.0, follow_redirects=False) as client:
            response = await client.get(url)
            response.raise_for_status()
            keys: dict[str, Any] = response.json()
            return keys

    return fetch


class TokenVerifier:
    """Turns access tokens into users. Remembers verified tokens until they expire, for speed."""

    def __init__(self, source: KeySource, issuer: str, audience: str) -> None:
        """Accept tokens that `issuer` made for `audience` and signed with a key of `source`."""
        #: Where keys come from that are not known yet.
        self.source = source
        self._issuer = issuer
        self._audience = audience
        self._keys: dict[str, PyJWK] = {}
        self._fetched_at = float("-inf")
        self._fetching = asyncio.Lock()
        self._verified: dict[str, tuple[float, User]] = {}

    async def verify(self, token: str) -> User:
        """Return the token's user; raises TokenRefused."""
        if known := self._verified.get(token):
            expires_at, user = known
            if time.time() < expires_at:
                return user
            del self._verified[token]
        if len(token) > _MAX_TOKEN_BYTES:
            raise TokenRefused("longer than an access token can be")
        claims = self._claims(token, await self._key(token))
        user = User(
            id=claims["sub"],
            roles=frozenset(str(role) for role in claims.get("roles", ())),
            session_id=str(claims.get("sid", "")),
        )
        if len(self._verified) >= _REMEMBERED:
            self._verified.clear()
        self._verified[token] = (float(claims["exp"]), user)
        return user

    def _claims(self, token: str, key: PyJWK) -> dict[str, Any]:
        try:
            return jwt.decode(
                token,
                key=key,
                algorithms=[algorithm for algorithm in _ALGORITHMS if algorithm == key.algorithm_name],
                issuer=self._issuer,
                audience=self._audience,
                leeway=_LEEWAY_SECONDS,
                options={"require": _CLAIMS},
            )
        except jwt.PyJWTError as error:
            raise TokenRefused(str(error)) from None

    async def _key(self, token: str) -> PyJWK:
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError as error:
            raise TokenRefused(str(error)) from None
        if str(header.get("typ", "")).lower() not in ("at+jwt", "application/at+jwt"):
            raise TokenRefused("not an access token by its typ")
        key_id = str(header.get("kid", ""))
        if key_id not in self._keys:
            await self._fetch_keys()
        try:
            return self._keys[key_id]
        except KeyError:
            raise TokenRefused("signed with an unknown key") from None

    async def _fetch_keys(self) -> None:
        async with self._fetching:
            if time.monotonic() - self._fetched_at < _REFETCH_SECONDS:
                return
            document = await self.source()
            self._keys = {
                key["kid"]: PyJWK(key)
                for key in document.get("keys", ())
                if key.get("use", "sig") == "sig" and "kid" in key
            }
            self._fetched_at = time.monotonic()
