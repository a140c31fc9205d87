"""Request headers: an index by name, and the names that pass through the edge under their own names."""

import re
from collections.abc import Sequence

from edge_gateway.errors import invalid_argument

Header = tuple[bytes, bytes]

#: Passed on under their own names.
FORWARDED = (
    "accept-language", "authorization", "baggage", "idempotency-key", "traceparent", "tracestate",
    "webhook-id", "webhook-signature", "webhook-timestamp",
)  # fmt: skip
#: Must not occur twice: which one counts would depend on who reads them.
_SINGLE = (
    b"authorization", b"content-length", b"content-type", b"grpc-timeout", b"host", b"idempotency-key", b"if-match",
)  # fmt: skip

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


def collect(headers: Sequence[Header]) -> dict[bytes, bytes]:
    """Indexes headers by name; a repeated one is joined by commas, or refused where only one may be."""
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
    """Returns a request id that is fit to pass on and to log."""
    return value.decode() if value is not None and _REQUEST_ID.fullmatch(value) else None
