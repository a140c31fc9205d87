"""Authentication of end users: access tokens, verified by the issuer's published keys (RFC 8725, RFC 9068)."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import jwt
from jwt import PyJWK

from chassis.context import User
from chassis.rpc.revocations import Revocations

log = logging.getLogger(__name__)

_ALGORITHMS = ["EdDSA", "ES256", "RS256"]
_CLAIMS = ["exp", "iat", "iss", "aud", "sub", "jti"]
_LEEWAY_SECONDS = 30
_MAX_TOKEN_BYTES = 4096
_CACHED_TOKENS = 10_000
#: Keys are fetched again for an unknown key id, but not more often than this: a client can invent key ids.
_REFETCH_SECONDS = 5.0
#: The same after a fetch that failed.
_RETRY_FETCH_SECONDS = 1.0

#: Returns a JSON Web Key Set as parsed JSON.
KeySource = Callable[[], Awaitable[dict[str, Any]]]


class TokenRejected(Exception):
    """The access token is not acceptable; the text is for the log only."""


class KeysUnavailable(ConnectionError):
    """The key source does not answer, so the token can be neither verified nor rejected."""


def http_key_source(url: str) -> KeySource:
    """Fetch the key set from a JWKS address, such as a foreign OIDC issuer's."""

    async def fetch() -> dict[str, Any]:
        import httpx  # noqa: PLC0415  a tenth of a service's imports; few fetch foreign keys

        async with httpx.AsyncClient(timeout=5.0, follow_redirects=False) as client:
            response = await client.get(url)
            response.raise_for_status()
            keys: dict[str, Any] = response.json()
            return keys

    return fetch


class TokenVerifier:
    """Verifies access tokens, and caches verified ones until they expire."""

    def __init__(self, source: KeySource, issuer: str, audience: str) -> None:
        """Accept tokens that `issuer` made for `audience` and signed with a key of `source`."""
        #: Where unknown keys are fetched.
        self.source = source
        self._issuer = issuer
        self._audience = audience
        self._keys: dict[str, PyJWK] = {}
        self._fetch_after = float("-inf")
        self._source_failed = False
        self._fetching = asyncio.Lock()
        self._verified: dict[str, tuple[float, User]] = {}
        #: The sessions whose tokens are rejected before they expire.
        self.revocations = Revocations()

    async def verify(self, token: str) -> User:
        """Return the token's user; raises TokenRejected or KeysUnavailable."""
        user = await self._verify(token)
        if user.session_id in self.revocations:
            raise TokenRejected("its session has ended")
        return user

    async def _verify(self, token: str) -> User:
        if cached := self._verified.get(token):
            expires_at, user = cached
            if time.time() < expires_at:
                return user
            del self._verified[token]
        if len(token) > _MAX_TOKEN_BYTES:
            raise TokenRejected("longer than an access token can be")
        claims = self._claims(token, await self._key(token))
        user = _user(claims)
        if len(self._verified) >= _CACHED_TOKENS:
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
            raise TokenRejected(str(error)) from None

    async def _key(self, token: str) -> PyJWK:
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError as error:
            raise TokenRejected(str(error)) from None
        if str(header.get("typ", "")).lower() not in ("at+jwt", "application/at+jwt"):
            raise TokenRejected("not an access token by its typ")
        key_id = str(header.get("kid", ""))
        if key_id not in self._keys:
            await self._fetch_keys()
        try:
            return self._keys[key_id]
        except KeyError:
            raise TokenRejected("signed with an unknown key") from None

    async def _fetch_keys(self) -> None:
        async with self._fetching:
            if time.monotonic() >= self._fetch_after:
                try:
                    self._keys = _usable(await self.source())
                    self._source_failed = False
                except Exception as error:
                    log.warning("token keys not fetched", exc_info=error)
                    self._source_failed = True
                self._fetch_after = time.monotonic() + (
                    _RETRY_FETCH_SECONDS if self._source_failed else _REFETCH_SECONDS
                )
            if self._source_failed:
                raise KeysUnavailable


def _user(claims: dict[str, Any]) -> User:
    roles = claims.get("roles", [])
    if not claims["sub"] or not isinstance(roles, list):
        raise TokenRejected("its subject is empty or its roles are no list")
    return User(
        id=claims["sub"],
        roles=frozenset(map(str, roles)),
        session_id=str(claims.get("sid", "")),
        expire_time=float(claims["exp"]) + _LEEWAY_SECONDS,
    )


def _usable(document: dict[str, Any]) -> dict[str, PyJWK]:
    """Return the keys by id, without those with another use or of an unsupported kind (RFC 7517, section 5)."""
    keys = {}
    for entry in document.get("keys", ()):
        if "kid" in entry and entry.get("use", "sig") == "sig":
            try:
                keys[str(entry["kid"])] = PyJWK(entry)
            except jwt.PyJWTError as error:
                log.warning("token key not supported", extra={"key_id": entry["kid"], "error": str(error)})
    return keys
