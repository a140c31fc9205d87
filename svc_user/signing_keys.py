"""The keys that sign access tokens: rows that all processes share, generated and deleted in time."""

import base64
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chassis import Database, current_time
from chassis.settings import SettingsError
from svc_user import domain_keys, store_keys
from svc_user.crypto import DecryptionFailed, decrypt, encrypt
from svc_user.domain_keys import SigningKey


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPolicy:
    """The claims that all access tokens share, and their lifetime."""

    issuer: str
    audience: str
    lifetime: timedelta


class SigningKeys:
    """Signs access tokens, and publishes the public keys that verify them."""

    def __init__(self, db: Database, secret: bytes, policy: TokenPolicy, *, rotation: timedelta) -> None:
        """Encrypt the private keys in the database with `secret`; a key signs for `rotation`."""
        self._db = db
        self._secret = secret
        self._rotation = rotation
        self.policy = policy
        self._keys: list[SigningKey] = []
        self._private_keys: dict[str, Ed25519PrivateKey] = {}

    async def refresh(self) -> None:
        """Generate missing keys, delete retired ones, and load those of other processes; raises SettingsError."""
        async with self._db.transaction() as tx:
            keys = await store_keys.lock_keys(tx)
            now = await current_time(tx)
            for use_time in domain_keys.missing_use_times(keys, now, self._rotation):
                await store_keys.insert_key(tx, self._generate(use_time))
            await store_keys.delete_keys(tx, domain_keys.retired_keys(keys, now, self.policy.lifetime))
            keys = await store_keys.list_keys(tx)
        self._private_keys = {key.id: self._private_keys.get(key.id) or self._decrypt(key) for key in keys}
        self._keys = keys

    def sign(self, user_id: str, session_id: str, roles: Iterable[str], now: datetime) -> str:
        """Return an access token (RFC 9068)."""
        key = domain_keys.active_key(self._keys, now)
        issued = int(now.timestamp())
        claims = {
            "iss": self.policy.issuer,
            "aud": self.policy.audience,
            "sub": user_id,
            "sid": session_id,
            "jti": uuid.uuid4().hex,
            "roles": sorted(roles),
            "iat": issued,
            "exp": issued + int(self.policy.lifetime.total_seconds()),
        }
        return jwt.encode(
            claims, self._private_keys[key.id], algorithm="EdDSA", headers={"kid": key.id, "typ": "at+jwt"}
        )

    def public_keys(self) -> list[dict[str, str]]:
        """Return the published keys as JSON Web Keys (RFC 7517)."""
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

    async def key_set(self) -> dict[str, Any]:
        """Return the present JWKS document, which verifies the service's own tokens: a `chassis.rpc.auth.KeySource`."""
        await self.refresh()
        return {"keys": self.public_keys()}

    def _generate(self, use_time: datetime) -> SigningKey:
        private = Ed25519PrivateKey.generate()
        key_id = uuid.uuid4().hex
        return SigningKey(
            id=key_id,
            public_key=private.public_key().public_bytes_raw(),
            private_key_ciphertext=encrypt(self._secret, private.private_bytes_raw(), key_id),
            use_time=use_time,
        )

    def _decrypt(self, key: SigningKey) -> Ed25519PrivateKey:
        try:
            return Ed25519PrivateKey.from_private_bytes(decrypt(self._secret, key.private_key_ciphertext, key.id))
        except DecryptionFailed:
            raise SettingsError(
                "SIGNING_KEY_SECRET is not the one that the stored signing keys are encrypted with"
            ) from None
