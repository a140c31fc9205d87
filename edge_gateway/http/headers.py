"""Request headers: an index by name, and the names that pass through the edge under their own names."""

import re
from collections.abc import Sequence

from edge_gateway.errors import invalid_argument

Header = tuple[bytes, bytes]

#: Headers forwarded as metadata under their own names.
FORWARDED = (
    "accept-language", "authorization", "baggage", "idempotency-key", "traceparent", "tracestate",
    "webhook-id", "webhook-signature", "webhook-timestamp",
)  # fmt: skip
#: Headers that must not occur twice, since readers would disagree on which one counts.
_SINGLE = (
    b"authorization", b"content-length", b"content-type", b"grpc-timeout", b"host", b"idempotency-key", b"if-match",
)  # fmt: skip

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


def collect(headers: Sequence[Header]) -> dict[bytes, bytes]:
    """Index headers by name, joining repeated ones by commas; raise EdgeError 400 where only one may occur."""
    index = dict(headers)
    if len(index) == len(headers):
        return index
    index.clear()
    for name, value in headers:
        if name in index:
            if name in _SINGLE:
                raise invalid_argument(f"the header {name.decode()} occurs more than once")
            index[name] += b", " + value
        else:
            index[name] = value
    return index


def accept_request_id(value: bytes | None) -> str | None:
    """Return a request id if it is safe to forward and to log, else None."""
    return value.decode() if value is not None and _REQUEST_ID.fullmatch(value) else None
