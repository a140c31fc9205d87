"""The keys that access tokens are signed with: rows that all processes share, made and retired in time."""

import base64
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chassis import Database
from chassis.settings import SettingsError
from svc_user import domain, store
from svc_user.domain import SigningKey
from svc_user.sealing import SealBroken, seal, unseal


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRules:
    """What access tokens say beside who the user is."""

    issuer: str
    audience: str
    lifetime: timedelta


class Keyring:
    """Signs access tokens, and publishes what they are verified with."""

    def __init__(self, db: Database, secret: bytes, rules: TokenRules, *, rotation: timedelta) -> None:
        """`secret` seals the private keys in the database; a key signs for `rotation`."""
        self._db = db
        self._secret = secret
        self._rotation = rotation
        self.rules = rules
        self._keys: list[SigningKey] = []
        self._opened: dict[str, Ed25519PrivateKey] = {}

    async def refresh(self) -> None:
        """Make the keys that are missing, delete those that are retired, and learn what others did."""
        async with self._db.transaction() as tx:
            keys = await store.lock_keys(tx)
            now = await store.read_now(tx)
            for use_time in domain.missing_use_times(keys, now, self._rotation):
                await store.insert_key(tx, self._made(use_time))
            await store.delete_keys(tx, domain.retired_keys(keys, now, self.rules.lifetime))
            keys = await store.list_keys(tx)
        self._opened = {key.id: self._opened.get(key.id) or self._open(key) for key in keys}
        self._keys = keys

    def sign(self, user_id: str, session_id: str, roles: Iterable[str], now: datetime) -> str:
        """Return an access token (RFC 9068)."""
        key = domain.signing_key(self._keys, now)
        issued = int(now.timestamp())
        claims = {
            "iss": self.rules.issuer,
            "aud": self.rules.audience,
            "sub": user_id,
            "sid": session_id,
            "jti": uuid.uuid4().hex,
            "roles": sorted(roles),
            "iat": issued,
            "exp": issued + int(self.rules.lifetime.total_seconds()),
        }
        return jwt.encode(claims, self._opened[key.id], algorithm="EdDSA", headers={"kid": key.id, "typ": "at+jwt"})

    def public_keys(self) -> list[dict[str, str]]:
        """Return the keys that verifiers shall know, as JSON Web Keys."""
        return [
            {
                "kty": "OKP",
                "crv": "Ed25519",
                "use": "sig",
                "alg": "EdDSA",
                "kid": key.id,
                "x": base64.urlsafe_b64encode(key.public_key).rstrip(b"=").decode(),
            }
            for key in self._keys
        ]

    async def document(self) -> dict[str, Any]:
        """Return the key set as it is now: how the service verifies its own tokens, a `chassis.rpc.auth.KeySource`."""
        await self.refresh()
        return {"keys": self.public_keys()}

    def _made(self, use_time: datetime) -> SigningKey:
        private = Ed25519PrivateKey.generate()
        key_id = uuid.uuid4().hex
        return SigningKey(
            id=key_id,
            public_key=private.public_key().public_bytes_raw(),
            sealed_private_key=seal(self._secret, private.private_bytes_raw(), key_id),
            use_time=use_time,
        )

    def _open(self, key: SigningKey) -> Ed25519PrivateKey:
        try:
            return Ed25519PrivateKey.from_private_bytes(unseal(self._secret, key.sealed_private_key, key.id))
        except SealBroken:
            raise SettingsError(
                "SIGNING_KEY_SECRET is not the one that the stored signing keys are sealed with"
            ) from None
