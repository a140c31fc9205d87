"""Checks that a webhook comes from who it says, unchanged and lately (Standard Webhooks).

Whether it was seen before is for the service's inbox, by the webhook's id.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

import orjson

from chassis.settings import SettingsError

T = TypeVar("T")

TOLERANCE = timedelta(seconds=300)
#: How long a service remembers the ids of webhooks: senders try for some days, each time signed anew.
RETENTION = timedelta(days=30)

# Without a dot in the id, "{id}.{timestamp}.{body}" can be cut in one way only.
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_TIMESTAMP = re.compile(r"[0-9]{1,11}")
_SIGNATURES_AT_MOST = 8


class WebhookRejected(Exception):
    """A request that is not a webhook of ours to trust; `reason` is one word for the log."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Webhook(Generic[T]):
    """What was told: an `id` to know it again by, a `type` such as payment.captured, and the `data` then."""

    id: str
    type: str
    data: T


def verify(
    headers: Mapping[str, str],
    body: bytes,
    secrets: Sequence[str],
    now: datetime,
    *,
    read: Callable[[Any], T],
) -> Webhook[T]:
    """Returns the webhook, its data read by `read`, or raises WebhookRejected.

    Header names are lower case, as in gRPC metadata. There are two `secrets` while one replaces the other.
    """
    webhook_id = _header(headers, "webhook-id", _ID)
    timestamp = _header(headers, "webhook-timestamp", _TIMESTAMP)
    claimed = headers.get("webhook-signature", "").split()[:_SIGNATURES_AT_MOST]
    if abs(now - datetime.fromtimestamp(int(timestamp), UTC)) > TOLERANCE:
        raise WebhookRejected("timestamp_out_of_window")
    signed = b".".join((webhook_id.encode(), timestamp.encode(), body))
    expected = [b"v1," + base64.b64encode(_digest(secret, signed)) for secret in secrets]
    # Every pair is compared, so that the time taken tells nothing about which of them came near.
    matches = [hmac.compare_digest(mine, theirs.encode()) for mine in expected for theirs in claimed]
    if not any(matches):
        raise WebhookRejected("signature_mismatch")
    try:
        content = orjson.loads(body)
        return Webhook(webhook_id, str(content["type"]), read(content["data"]))
    except (ValueError, TypeError, KeyError) as error:
        raise WebhookRejected("body_malformed") from error


def key_of(secret: str) -> bytes:
    """The HMAC key inside a `whsec_...` secret; a ValueError here is a mistake in the configuration."""
    prefix, _, encoded = secret.partition("_")
    try:
        key = base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise ValueError("a webhook secret is whsec_ and base64") from error
    if prefix != "whsec" or not 24 <= len(key) <= 64:
        raise ValueError("a webhook secret is whsec_ and 24 to 64 bytes in base64")
    return key


def secrets_of(setting: str, text: str) -> tuple[str, ...]:
    """The secrets that a setting holds, two of them with a comma between while one replaces the other.

    Raises SettingsError, naming the setting, when there is none or one is malformed.
    """
    secrets = tuple(secret.strip() for secret in text.split(",") if secret.strip())
    if not secrets:
        raise SettingsError(f"{setting} is not set")
    try:
        for secret in secrets:
            key_of(secret)
    except ValueError as error:
        raise SettingsError(f"{setting}: {error}") from None
    return secrets


def _digest(secret: str, content: bytes) -> bytes:
    return hmac.digest(key_of(secret), content, hashlib.sha256)


def _header(headers: Mapping[str, str], name: str, pattern: re.Pattern[str]) -> str:
    value = headers.get(name, "")
    if not pattern.fullmatch(value):
        raise WebhookRejected(f"{name.removeprefix('webhook-')}_{'malformed' if value else 'missing'}")
    return value
