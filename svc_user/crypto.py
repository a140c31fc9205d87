"""Cryptography of stored secrets: random tokens, their digests, and authenticated encryption (AES-256-GCM)."""

import base64
import binascii
import hashlib
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chassis.settings import SettingsError

_NONCE_BYTES = 12


class DecryptionFailed(Exception):
    """A ciphertext was encrypted with another key or for another context, or was changed."""


def new_token() -> str:
    """Return a token of 256 random bits."""
    return secrets.token_urlsafe(32)


def new_token_of(family: str) -> str:
    """Return a token of a family: its first part says which one, its second part is its own."""
    return f"{family}.{new_token()}"


def family_of(token: str) -> str:
    """Return the family of a token; empty for a token of none."""
    family, dot, _ = token.partition(".")
    return family if dot else ""


def digest(text: str) -> bytes:
    """Return the SHA-256 digest by which a token or an email address is stored and found."""
    return hashlib.sha256(text.encode()).digest()


def key_from_token(token: str) -> bytes:
    """Return the encryption key derived from a token; it cannot be derived from the token's digest."""
    return hashlib.sha256(b"shopmesh successor\0" + token.encode()).digest()


def key_from_setting(name: str, text: str) -> bytes:
    """Return the encryption key in a setting; raises SettingsError unless it is 32 bytes in base64."""
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error:
        key = b""
    if len(key) != 32:
        raise SettingsError(f"{name} must be 32 bytes in base64")
    return key


def encrypt(key: bytes, plaintext: bytes, context: str) -> bytes:
    """Return the nonce and ciphertext of `plaintext`; `context` is authenticated with it, but not stored."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plaintext, context.encode())


def decrypt(key: bytes, ciphertext: bytes, context: str) -> bytes:
    """Return the plaintext of what `encrypt` returned for the same context; raises DecryptionFailed."""
    try:
        return AESGCM(key).decrypt(ciphertext[:_NONCE_BYTES], ciphertext[_NONCE_BYTES:], context.encode())
    except InvalidTag:
        raise DecryptionFailed from None
