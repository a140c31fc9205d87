"""Maps HTTP headers to fields: Idempotency-Key, ETag, If-Match, If-None-Match, Last-Event-ID and caching."""

import hashlib
import re
from collections.abc import Mapping

from protobuf import DescField, Message

from edge_gateway.errors import invalid_argument, invalid_field
from edge_gateway.http.exchange import Request
from edge_gateway.http.headers import Header
from edge_gateway.routing.rules import Rule

_KEY = re.compile(r'"?([\x21\x23-\x7e][\x20\x21\x23-\x7e]{0,254})"?')
_TAG = re.compile(r'(?:W/)?"([^"]*)"')

_VARY: Header = (b"vary", b"accept, accept-encoding, accept-language, authorization, origin")
_NO_STORE: Header = (b"cache-control", b"no-store")


class ConditionalRequests:
    """Maps conditional and caching headers."""

    def __init__(self, public_max_age: int) -> None:
        self._public: Header = (b"cache-control", b"public, max-age=%d" % public_max_age)
        #: A public read may show more to some users: only the client that sent its token may keep the reply.
        self._private: Header = (b"cache-control", b"private, max-age=%d" % public_max_age)

    def to_request(self, rule: Rule, headers: Mapping[bytes, bytes], message: Message) -> None:
        """Set the request fields that headers represent; raise EdgeError 400 if one has another value."""
        if rule.request_id is not None and (key := headers.get(b"idempotency-key")):
            _fill(message, rule.request_id, "Idempotency-Key", _idempotency_key(key))
        if rule.etag_in is not None and (tags := headers.get(b"if-match")):
            tag = _strong_tag(tags)
            if tag is not None:
                _fill(rule.etag_in.parent(message), rule.etag_in.field, "If-Match", tag)
        if rule.resume_token is not None and (last := headers.get(b"last-event-id")):
            message[rule.resume_token] = _text(last, "Last-Event-ID")

    def to_reply(self, rule: Rule, request: Request, message: Message, body: bytes, headers: list[Header]) -> int:
        """Add caching headers; return 304 if the client has this reply, else 200."""
        reads = request.method in ("GET", "HEAD")
        policy = rule.rpc.policy
        public = reads and policy is not None and policy.access == "PUBLIC" and not rule.rpc.server_streaming
        tag = ""
        if rule.etag_out is not None:
            tag = message[rule.etag_out]
        elif public:
            tag = hashlib.blake2b(body, digest_size=12).hexdigest()
        if tag and tag.isascii() and tag.isprintable() and '"' not in tag:
            headers.append((b"etag", f'"{tag}"'.encode()))
        if not any(name == b"cache-control" for name, _ in headers):
            if public:
                headers.append(self._private if _has_token(request) else self._public)
            elif policy is not None or not reads:
                headers.append(_NO_STORE)
        headers.append(_VARY)
        return 304 if reads and tag and _knows(request.header(b"if-none-match"), tag) else 200


def _has_token(request: Request) -> bool:
    return bool(request.header(b"authorization"))


def _knows(tags: bytes, tag: str) -> bool:
    return tags.strip() == b"*" or tag in _TAG.findall(tags.decode("latin-1"))


def _fill(message: Message, field: DescField, header: str, value: str) -> None:
    current = message[field]
    if current and current != value:
        raise invalid_field(field.json_name, f"differs from the header {header}")
    message[field] = value


def _idempotency_key(value: bytes) -> str:
    found = _KEY.fullmatch(value.decode("latin-1"))
    if found is None:
        raise invalid_argument("the header Idempotency-Key is not 1 to 255 printable characters")
    return found[1]


def _strong_tag(value: bytes) -> str | None:
    text = _text(value, "If-Match").strip()
    if text == "*":
        return None
    tags = _TAG.findall(text)
    if len(tags) != 1 or text.startswith("W/"):
        raise invalid_argument('the header If-Match is not one strong tag such as "5"')
    return str(tags[0])


def _text(value: bytes, header: str) -> str:
    text = value.decode("latin-1")
    if not (text.isascii() and text.isprintable()):
        raise invalid_argument(f"the header {header} holds more than printable ASCII")
    return text
