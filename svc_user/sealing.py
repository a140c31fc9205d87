"""Secrets at rest: random tokens, the digests that they are found by, and boxes that only a key's holder opens."""

import base64
import binascii
import hashlib
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chassis.settings import SettingsError

_NONCE_BYTES = 12


class SealBroken(Exception):
    """A box does not open with this key: it was made with another, or changed since."""


def new_token() -> str:
    """Return a token of 256 random bits."""
    return secrets.token_urlsafe(32)


def digest(text: str) -> bytes:
    """Return what a token, or an email address, is found by without being known."""
    return hashlib.sha256(text.encode()).digest()


def key_of_token(token: str) -> bytes:
    """Return the key of boxes that the holder of a token opens; it does not follow from the token's digest."""
    return hashlib.sha256(b"shopmesh successor\0" + token.encode()).digest()


def key_of_setting(name: str, text: str) -> bytes:
    """Return the key that a setting gives; raises SettingsError unless it is 32 bytes in base64."""
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error:
        key = b""
    if len(key) != 32:
        raise SettingsError(f"{name} must be 32 bytes in base64")
    return key


def seal(key: bytes, content: bytes, label: str) -> bytes:
    """Return a box with `content` that `key` opens again, under the same label only."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, content, label.encode())


def unseal(key: bytes, box: bytes, label: str) -> bytes:
    """Return what is in a box; raises SealBroken."""
    try:
        return AESGCM(key).decrypt(box[:_NONCE_BYTES], box[_NONCE_BYTES:], label.encode())
    except InvalidTag:
        raise SealBroken from None
