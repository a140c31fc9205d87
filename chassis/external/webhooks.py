"""Webhooks that external APIs send: signed, recent, and applied once (Standard Webhooks).

Verify one with `receive`, then claim its id with `claim` in the transaction that applies it.
"""

import base64
import binascii
import hashlib
import hmac
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

import orjson
from google.api.httpbody_pb2 import HttpBody

from chassis.context import Context
from chassis.postgres.database import Transaction
from chassis.settings import SettingsError
from shop.chassis.v1 import chassis_errors

log = logging.getLogger(__name__)

T = TypeVar("T")

_CLAIM = """
INSERT INTO webhook (sender, webhook_id, type) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING true"""

TOLERANCE = timedelta(seconds=300)

# Without a dot in the id, "{id}.{timestamp}.{body}" can be cut in one way only.
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_TIMESTAMP = re.compile(r"[0-9]{1,11}")
_SIGNATURES_AT_MOST = 8


class Untrusted(Exception):
    """The request is not a trusted webhook; `reason` is one word for the log."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Webhook(Generic[T]):
    """An `id`, the same when the webhook is sent again, a `type` such as payment.captured, and its `data`."""

    id: str
    type: str
    data: T


def receive(request: HttpBody, context: Context, secrets: Sequence[str], *, read: Callable[[Any], T]) -> Webhook[T]:
    """Return the webhook that an RPC received, its data parsed by `read`; raises WebhookRejected or WebhookMalformed.

    It makes no query, so that unauthenticated requests put no load on the database.
    """
    headers = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    try:
        return verify(headers, request.data, secrets, datetime.now(UTC), read=read)
    except Untrusted as error:
        log.warning("webhook rejected", extra={"reason": error.reason})
        malformed = error.reason == "body_malformed"
        raise (chassis_errors.WebhookMalformed if malformed else chassis_errors.WebhookRejected) from None


async def claim(tx: Transaction, sender: str, webhook: Webhook[Any]) -> bool:
    """Claim the webhook in `tx`, and return whether no earlier delivery has claimed it."""
    return bool(await tx.fetchval(_CLAIM, sender, webhook.id, webhook.type))


def verify(
    headers: Mapping[str, str],
    body: bytes,
    secrets: Sequence[str],
    now: datetime,
    *,
    read: Callable[[Any], T],
) -> Webhook[T]:
    """Return the webhook, its data parsed by `read`; raises Untrusted.

    Header names are lower case, as in gRPC metadata. There are two `secrets` during a rotation.
    """
    webhook_id = _header(headers, "webhook-id", _ID)
    timestamp = _header(headers, "webhook-timestamp", _TIMESTAMP)
    claimed = headers.get("webhook-signature", "").split()[:_SIGNATURES_AT_MOST]
    if abs(now - datetime.fromtimestamp(int(timestamp), UTC)) > TOLERANCE:
        raise Untrusted("timestamp_out_of_window")
    signed = b".".join((webhook_id.encode(), timestamp.encode(), body))
    expected = [b"v1," + base64.b64encode(_digest(secret, signed)) for secret in secrets]
    # Every pair is compared, so that the duration reveals nothing about the match.
    matches = [hmac.compare_digest(mine, theirs.encode()) for mine in expected for theirs in claimed]
    if not any(matches):
        raise Untrusted("signature_mismatch")
    try:
        content = _without_nul(orjson.loads(body)) if b"\\u0000" in body else orjson.loads(body)
        return Webhook(webhook_id, str(content["type"]), read(content["data"]))
    except (ValueError, TypeError, KeyError) as error:
        raise Untrusted("body_malformed") from error


def key_of(secret: str) -> bytes:
    """Return the HMAC key inside a `whsec_...` secret; raises ValueError for a malformed one."""
    prefix, _, encoded = secret.partition("_")
    try:
        key = base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise ValueError("a webhook secret is whsec_ and base64") from error
    if prefix != "whsec" or not 24 <= len(key) <= 64:
        raise ValueError("a webhook secret is whsec_ and 24 to 64 bytes in base64")
    return key


def secrets_of(setting: str, text: str) -> tuple[str, ...]:
    """Return the secrets that a setting holds, two with a comma between them during a rotation.

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


def _without_nul(content: Any) -> Any:
    """Return this JSON; raises ValueError if a text in it holds U+0000, which PostgreSQL cannot store."""
    match content:
        case str() if "\0" in content:
            raise ValueError("U+0000")
        case dict():
            _without_nul([*content, *content.values()])
        case list():
            for part in content:
                _without_nul(part)
    return content


def _digest(secret: str, content: bytes) -> bytes:
    return hmac.digest(key_of(secret), content, hashlib.sha256)


def _header(headers: Mapping[str, str], name: str, pattern: re.Pattern[str]) -> str:
    value = headers.get(name, "")
    if not pattern.fullmatch(value):
        raise Untrusted(f"{name.removeprefix('webhook-')}_{'malformed' if value else 'missing'}")
    return value
